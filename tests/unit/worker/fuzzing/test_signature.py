import json
from pathlib import Path

import pytest
from fuzzing_subjects import nested

from fuzzfarm_worker.fuzzing import signature
from fuzzfarm_worker.fuzzing.loops import Loop, loop_around
from fuzzfarm_worker.fuzzing.signature import Frame, of_exception, of_stack


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


def parsed(text: str) -> int:
    return int(text)


def one_way(text: str) -> int:
    return parsed(text)


def another_way(text: str) -> list[int]:
    return [parsed(part) for part in text.split(",")]


def test_one_bug_that_is_reached_on_two_ways_is_one() -> None:
    marks = {of_exception(failure(lambda way=way: way("x"))) for way in (parsed, one_way, another_way)}
    assert marks == {"ValueError < test_signature.py:parsed < return int(text)"}


def require(condition: bool) -> None:
    if not condition:
        raise ValueError("required")


class Range:
    def __init__(self, start: int, stop: int) -> None:
        if start > stop:
            raise ValueError(f"{start} is behind {stop}")


def caller(number: int) -> object:
    if number == 1:
        return require(False)
    if number == 2:
        return Range(2, 1)
    return Range(3, 1)


def test_what_a_helper_raises_is_the_bug_of_its_caller() -> None:
    marks = [of_exception(failure(lambda number=number: caller(number))) for number in (1, 2, 3)]
    assert len(set(marks)) == 3
    assert marks[0] == (
        "ValueError < test_signature.py:caller < return require(False) "
        '< test_signature.py:require < raise ValueError("required")'
    )


def verify(values: list[int]) -> int:
    return values[0]


def test_what_goes_wrong_inside_a_helper_is_its_own_bug() -> None:
    assert of_exception(failure(lambda: verify([]))) == "IndexError < test_signature.py:verify < return values[0]"


def tried(number: int) -> None:
    try:
        one_of_two_bugs(number)
    except ValueError:
        forever_unfinished()


def forever_unfinished() -> None:
    raise NotImplementedError


def test_what_was_handled_further_out_has_no_part() -> None:
    marks = {of_exception(failure(lambda number=number: tried(number))) for number in (1, 2)}
    assert marks == {"NotImplementedError < test_signature.py:forever_unfinished < raise NotImplementedError"}


def implicitly_translated(number: int) -> None:
    try:
        one_of_two_bugs(number)
    except ValueError:
        raise LookupError("translated")  # noqa: B904 - what is tested


def test_what_was_caught_where_the_error_was_raised_is_its_cause() -> None:
    marks = {of_exception(failure(lambda number=number: implicitly_translated(number))) for number in (1, 2)}
    assert len(marks) == 2


def twice(number: int) -> None:
    if number == 1:
        raise ValueError(number)
    if number == 2:
        raise ValueError(number)


def test_equal_lines_of_one_function_are_told_apart() -> None:
    marks = [of_exception(failure(lambda number=number: twice(number))) for number in (1, 2)]
    assert marks[0].endswith("< raise ValueError(number)")
    assert marks[1].endswith("< raise ValueError(number) #2")


def tree(node: list) -> int:
    return sum(tree(child) if child else leaf(node) for child in node)


def leaf(node: list) -> int:
    return tree(node)


def test_a_recursion_is_named_by_the_function_that_comes_back_most() -> None:
    endless: list = []
    endless.append(endless)
    through_leaves: list = [[]]
    marks = {of_exception(failure(lambda node=node: tree(node))) for node in (endless, through_leaves)}
    assert marks == {"RecursionError < test_signature.py:tree"}


def test_members_of_a_group_that_failed_besides_change_nothing() -> None:
    def grouped(numbers: list[int]) -> None:
        members = [failure(lambda number=number: one_of_two_bugs(number)) for number in numbers]
        raise BaseExceptionGroup("several", members)

    one, both, other = (of_exception(failure(lambda n=n: grouped(n))) for n in ([1], [2, 1, 1], [2]))
    assert one == both
    assert one != other


def hoard(number: int) -> None:
    kept = []
    while True:
        kept.append(number)
        if number == len(kept):
            raise MemoryError
        if number == -len(kept):
            raise MemoryError("another line")


def test_memory_that_runs_out_in_a_loop_is_one_bug_wherever_it_does() -> None:
    assert {of_exception(failure(lambda n=n: hoard(n))) for n in (1, -1)} == {"MemoryError < test_signature.py:hoard"}


SOURCE = """
def main(words):
    for word in words:
        work(word)

def work(word):
    place = 0
    while place < len(word):
        step(
            word,
        )
    return place

def step(word):
    # while it looks like a loop:
    for letter in word:
        look(letter)

def look(letter):
    return letter

def waits(word):
    lock.acquire()

def explores(word):
    return explores(word[1:]) + explores(word[:-1])
"""


@pytest.fixture
def stack(tmp_path: Path) -> "Stack":
    return Stack(tmp_path / "app.py", SOURCE)


class Stack:
    """Stacks of a source file, told by a piece of the line of each frame."""

    def __init__(self, path: Path, source: str) -> None:
        self.path = path
        path.write_text(source)

    def of(self, **lines: str) -> list[Frame]:
        text = self.path.read_text().splitlines()
        places = {name: next(at for at, line in enumerate(text, 1) if piece in line) for name, piece in lines.items()}
        return [Frame(str(self.path), line, name.rstrip("_")) for name, line in places.items()]


def test_a_hang_is_named_by_its_loop_wherever_it_was_caught(stack: Stack) -> None:
    outer = {"main": "work(word)", "work": "word,"}
    caught = [
        stack.of(**outer),
        stack.of(**{**outer, "work": "while place"}),
        stack.of(**outer, step="for letter"),
        stack.of(**outer, step="look(letter)", look="return letter"),
        stack.of(work="word,"),
    ]
    assert {of_stack("hang", frames) for frames in caught} == {"hang < app.py:work"}


def test_without_an_endless_loop_a_hang_is_named_by_another_or_by_the_line_that_waits(stack: Stack) -> None:
    assert of_stack("hang", stack.of(step="look(letter)", look="return letter")) == "hang < app.py:step"
    assert of_stack("hang", stack.of(waits="lock.acquire")) == "hang < app.py:waits < lock.acquire()"
    assert of_stack("hang", []) == "hang"


def test_a_recursion_that_takes_for_ever_is_named_by_its_function(stack: Stack) -> None:
    [frame] = stack.of(explores="explores(word[1:])")
    assert of_stack("hang", [*stack.of(work="word,"), *[frame] * 9]) == "hang < app.py:explores"


def test_a_crash_is_named_by_its_innermost_line_and_a_deep_one_by_its_recursion(stack: Stack) -> None:
    frames = stack.of(main="work(word)", waits="lock.acquire")
    assert of_stack("SIGSEGV", frames) == "SIGSEGV < app.py:waits < lock.acquire()"
    assert of_stack("SIGSEGV", stack.of(waits="lock.acquire")) == of_stack("SIGSEGV", frames)
    [frame] = stack.of(explores="explores(word[1:])")
    assert of_stack("SIGSEGV", [frame] * 99 + frames) == "SIGSEGV < app.py:explores"
    assert of_stack("exit code 3", []) == "exit code 3"


def test_an_edit_elsewhere_in_the_file_changes_no_signature(stack: Stack, tmp_path: Path) -> None:
    before = [of_stack(kind, stack.of(main="work(word)", work="word,")) for kind in ("hang", "SIGSEGV")]
    edited = Stack(stack.path, f"import os\n\n{SOURCE.replace('def waits', 'def awaits')}")
    assert [of_stack(kind, edited.of(main="work(word)", work="word,")) for kind in ("hang", "SIGSEGV")] == before


@pytest.mark.parametrize(
    ("piece", "loop"),
    [
        ("place = 0", Loop.NONE),
        ("while place", Loop.WHILE),
        ("word,", Loop.WHILE),
        ("return place", Loop.NONE),
        ("for letter", Loop.FOR),
        ("look(letter)", Loop.FOR),
        ("return letter", Loop.NONE),
    ],
)
def test_a_line_knows_the_loop_that_it_is_in(stack: Stack, piece: str, loop: Loop) -> None:
    [frame] = stack.of(function=piece)
    assert loop_around(frame.file, frame.line) is loop
    assert loop_around(frame.file, 10_000) is loop_around("/no/such/file.py", 1) is Loop.NONE


def test_functions_of_packages_are_told_apart() -> None:
    assert str(Frame("/a/one/__init__.py", 1, "f")) != str(Frame("/a/two/__init__.py", 1, "f"))
    assert str(Frame("/a/f.py", 1, "f.<locals>.<listcomp>")) == str(Frame("/b/f.py", 1, "f")) == "f.py:f"
