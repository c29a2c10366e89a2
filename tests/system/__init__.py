"""Real server processes: killed, stopped, doubled, starved of disk, and refused a start."""
