"""One measurement in a process of its own: `python worker.py module:function '{"keyword": value}'`.

The function prepares (imports, makes data, compiles) and returns what is to be timed, a function without arguments
that gives a JSON-ready dictionary. The process says `ready`, waits for a line, measures, and prints the dictionary.
"""

import importlib
import json
import sys


def main() -> None:
    module, function = sys.argv[1].split(":")
    measurement = getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))
    print("ready", flush=True)
    if sys.stdin.readline():
        print(json.dumps(measurement()), flush=True)


if __name__ == "__main__":
    main()
