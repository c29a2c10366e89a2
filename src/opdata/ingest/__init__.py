"""The write path, the only one: items are checked, split, sealed and handed to one store call.

Batch and single-item endpoints, dry runs and jobs all come through here: `check_*` turns a decoded
batch into work for the store, and `Checked.result` tells what became of each item once the store
has answered. Nothing here knows HTTP, and nothing waits.
"""

from opdata.ingest.checked import Checked as Checked
from opdata.ingest.entities import check_entities as check_entities
from opdata.ingest.events import check_events as check_events
from opdata.ingest.states import check_states as check_states
