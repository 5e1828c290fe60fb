import time

time.sleep(0.7)


def passes(number: int) -> None:
    pass
