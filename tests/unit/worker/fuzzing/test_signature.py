import json

import pytest
from fuzzing_subjects import nested

from fuzzfarm_worker.fuzzing import signature
from fuzzfarm_worker.fuzzing.signature import Frame


def failure(call: object) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        call()  # type: ignore[operator]
    return caught.value


def one_of_two_bugs(number: int) -> None:
    if number == 1:
        raise ValueError("first")
    raise ValueError("second")


def translated(number: int) -> None:
    try:
        one_of_two_bugs(number)
    except ValueError as exc:
        raise LookupError("translated") from exc


def forever(number: int) -> None:
    forever(number + 1)


def test_the_depth_of_recursion_does_not_matter() -> None:
    shallow, deep = (failure(lambda depth=depth: nested(depth)) for depth in (1, 40))
    assert signature.of_exception(shallow) == signature.of_exception(deep)


def test_one_exception_type_on_two_lines_is_two_bugs() -> None:
    one, other = (signature.of_exception(failure(lambda n=n: one_of_two_bugs(n))) for n in (1, 2))
    assert one != other


def test_the_cause_belongs_to_the_signature() -> None:
    one, other = (signature.of_exception(failure(lambda n=n: translated(n))) for n in (1, 2))
    assert one != other
    assert "LookupError" in one
    assert 'raise ValueError("first")' in one


def test_a_recursion_error_is_named_by_its_cycle_wherever_it_hit_the_limit() -> None:
    def from_deeper(levels: int) -> None:
        from_deeper(levels - 1) if levels else forever(0)

    one, other = (signature.of_exception(failure(lambda n=n: from_deeper(n))) for n in (0, 3))
    assert one == other
    assert "forever" in one


def test_frames_of_the_standard_library_count_only_when_there_are_no_others() -> None:
    exc = failure(lambda: json.loads("{"))
    assert "raw_decode" not in signature.of_exception(exc)
    library = [frame for frame in signature.walk(exc.__traceback__) if "json" in frame.file]
    assert signature.user_frames(library) == library


def test_a_loop_in_the_path_is_cut_out() -> None:
    path = [Frame("f.py", line, name) for line, name in enumerate(("a", "b", "c", "b", "c", "d"))]
    assert [frame.function for frame in signature.without_loops(path)] == ["a", "b", "c", "d"]


def test_groups_are_told_apart_by_their_members() -> None:
    def grouped(*members: Exception) -> None:
        raise ExceptionGroup("several", members)

    one, other = (
        signature.of_exception(failure(lambda m=members: grouped(*m))) for members in ([ValueError()], [KeyError()])
    )
    assert one != other


def test_a_finding_id_depends_on_target_and_signature() -> None:
    ids = {signature.finding_id(t, s) for t in ("a:b", "a:c") for s in ("x", "y")}
    assert len(ids) == 4
    assert all(len(identifier) == 12 for identifier in ids)
