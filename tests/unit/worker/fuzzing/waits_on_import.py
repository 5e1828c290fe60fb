import thread_subjects

thread_subjects.RELEASE.wait()


def passes(number: int) -> None:
    pass
