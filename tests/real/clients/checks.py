"""Runs checks and says which failed: the common part of the client scripts."""
import sys
import traceback


def run(checks, *arguments):
    """Calls each check; writes one line per check; exits with 1 when one failed."""
    failed = 0
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            check(*arguments)
            print(f"ok      {name}", flush=True)
        except Exception:  # a failed check must not hide the others
            failed += 1
            print(f"FAILED  {name}", flush=True)
            traceback.print_exc(limit=4, file=sys.stdout)
    print(f"{len(checks) - failed} of {len(checks)} checks passed", flush=True)
    sys.exit(1 if failed else 0)


def refused(error, call):
    """The error of type `error` that `call` raises."""
    try:
        call()
    except error as raised:
        return raised
    raise AssertionError(f"no {error.__name__} was raised")
