import os
from pathlib import Path

import pytest

from fuzzfarm_worker.fuzzing import generation, subject
from fuzzfarm_worker.fuzzing.seeds import MAX_SEED_BYTES, MUTATE, seeds_in


def write(folder: Path, **files: bytes) -> str:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return str(folder)


def loaded(folder: str) -> subject.Subject:
    return subject.load("fuzzing_subjects:keeps", f"inputs: seeds:{folder}")


def drawn(case: subject.Subject, count: int) -> list[bytes]:
    found: list[bytes] = []
    for index in range(count):
        case.generator.run(case.generator.at(0, index), lambda example: found.append(example.arguments[subject.VALUE]))
    return found


def test_seeds_are_the_files_of_a_folder_and_of_those_in_it_each_content_once(tmp_path: Path) -> None:
    write(tmp_path, b=b"two", c=b"two", a=b"longer")
    write(tmp_path / "inner", x=b"")
    assert seeds_in(str(tmp_path)) == [b"", b"two", b"longer"]


def test_links_and_pipes_and_large_files_are_no_seeds(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", secret=b"secret")
    folder = tmp_path / "seeds"
    write(folder, small=b"small", large=b"x" * (MAX_SEED_BYTES + 1))
    (folder / "file").symlink_to(Path(outside) / "secret")
    (folder / "folder").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    assert seeds_in(str(folder)) == [b"small"]


def test_an_example_is_a_seed_or_a_mutated_one(tmp_path: Path) -> None:
    seeds = {b"hello world", b"0123456789"}
    examples = drawn(loaded(write(tmp_path, a=b"hello world", b=b"0123456789")), 300)
    assert seeds < set(examples)
    assert len(set(examples)) > 200
    assert any(example.startswith(b"hello") and example.endswith(b"89") for example in examples), "spliced"


def test_the_names_of_seeds_do_not_matter_to_an_address(tmp_path: Path) -> None:
    one = write(tmp_path / "one", a=b"hello", b=b"bye")
    other = write(tmp_path / "other", y=b"bye", z=b"hello")
    assert drawn(loaded(one), 50) == drawn(loaded(other), 50)


@pytest.mark.parametrize("mutation", MUTATE, ids=lambda mutation: mutation.__name__)
def test_a_mutation_takes_any_place_of_any_data(mutation) -> None:
    for data in (b"", b"a", b"abcdef"):
        for place in range(len(data) + 1):
            for told in (b"\0" * 4, b"\xff" * 9, b"\x03\x05\x01\x02\x07"):
                assert type(mutation([b"", b"xyz"], data, place, told)) is bytes


def test_every_mutation_changes_something() -> None:
    for mutation in MUTATE:
        assert mutation([b"xyz"], b"abcdef", 2, b"\x03\x05\x01\x02") != b"abcdef"


def test_a_failure_shrinks_to_the_seed_without_what_does_not_matter(tmp_path: Path) -> None:
    case = loaded(write(tmp_path, a=b"a" * 40, b=b"fatal" + b"b" * 40))
    at = next(i for i in range(300) if len(data := drawn_at(case, i)) > 50 and b"fatal" in data)

    def fail(example: generation.Drawn) -> None:
        if b"fatal" in example.arguments[subject.VALUE]:
            raise LookupError

    data = case.generator.at(0, at)
    with pytest.raises(LookupError):
        case.generator.run(data, fail)
    smallest = case.generator.shrink(
        generation.encoded(data), fail, lambda exc: isinstance(exc, LookupError), proceed=lambda: True, budget_s=20
    )
    found: list[bytes] = []
    case.generator.run(case.generator.stored(smallest), lambda example: found.append(example.arguments[subject.VALUE]))
    assert found == [b"fatal" + b"b" * 40]


def drawn_at(case: subject.Subject, index: int) -> bytes:
    found: list[bytes] = []
    case.generator.run(case.generator.at(0, index), lambda example: found.append(example.arguments[subject.VALUE]))
    return found[0]
