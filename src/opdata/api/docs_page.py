PAGE = b""
HEADERS = {}


def asset(name):
    return None
