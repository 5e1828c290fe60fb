"""What counts as a crash of a command, and what tells two apart; reports are those of GCC 12 and Clang 17."""

import pytest

from fuzzfarm_worker.fuzzing.crashes import crash_of

ASAN = """some output
=================================================================
==19557==ERROR: AddressSanitizer: {kind} on address 0x602000000014 at pc 0x555ac5b3026b bp 0x7ffe91344e60 sp 0x7ffe9134
WRITE of size 1 at 0x602000000014 thread T0
    #0 0x7f10cb4b89cf in __interceptor_memcpy ../../../../src/libsanitizer/sanitizer_common/interceptors.inc:827
    #1 0x555ac5b3026a in {function} /tmp/cc/a.c:{line}
    #2 0x555ac5b303d5 in main /tmp/cc/a.c:5:3
    #3 0x7f10cb245249 in __libc_start_call_main ../sysdeps/nptl/libc_start_call_main.h:58
    #4 0x7f10cb245304 in __libc_start_main_impl ../csu/libc-start.c:360
    #5 0x555ac5b300f0 in _start (/tmp/cc/a+0x10f0) (BuildId: 53a0)

0x602000000014 is located 0 bytes to the right of 4-byte region [0x602000000010,0x602000000014)
allocated by thread T0 here:
    #0 0x7f10cb4b89cf in __interceptor_malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69
"""

UBSAN = """u.c:2:28: runtime error: signed integer overflow: {number} * 2147483647 cannot be represented in type 'int'
    #0 0x55bb79ffd17b in twice /tmp/cc/u.c:2
    #1 0x55bb79ffd193 in main /tmp/cc/u.c:3
"""

LSAN = """
=================================================================
==19578==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 10 byte(s) in 1 object(s) allocated from:
    #0 0x7f4317eb89cf in __interceptor_malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69
    #1 0x5601ff0bf166 in leak /tmp/cc/l.c:2
    #2 0x5601ff0bf176 in main /tmp/cc/l.c:3

SUMMARY: AddressSanitizer: 10 byte(s) leaked in 1 allocation(s).
"""

TSAN = """==================
WARNING: ThreadSanitizer: data race (pid=19596)
  Read of size 4 at 0x561bc1e4e054 by thread T2:
    #0 worker(int, char) /tmp/cc/t.cc:2 (t+0x11d0)

  Previous write of size 4 at 0x561bc1e4e054 by thread T1:
    #0 w /tmp/cc/t.c:2 (t+0x11e8)
"""

MSAN = """==1234==WARNING: MemorySanitizer: use-of-uninitialized-value
    #0 0x4a1b2c in check /src/m.c:7:9
    #1 0x4a1b9d in main /src/m.c:15:3
"""

SEGV = """AddressSanitizer:DEADLYSIGNAL
=================================================================
==77==ERROR: AddressSanitizer: SEGV on unknown address 0x000000000000 (pc 0x4a sp 0x7f T0)
    #0 0x4a1b2c in parse /src/p.c:7:9
"""

UNSYMBOLIZED = """==77==ERROR: AddressSanitizer: stack-buffer-overflow on address 0x7ff at pc 0x1 bp 0x2 sp 0x3
    #0 0x4a1b2c  (/opt/parser+0x4a1b2c) (BuildId: 00ff)
    #1 0x4a1b9d in main (/opt/parser+0x4a1b9d)
"""


@pytest.mark.parametrize(
    ("printed", "signature", "location"),
    [
        (
            ASAN.format(kind="heap-buffer-overflow", function="parse", line=4),
            "AddressSanitizer: heap-buffer-overflow < a.c:parse < a.c:main",
            "a.c:4 in parse",
        ),
        (
            UBSAN.format(number=97),
            "UndefinedBehaviorSanitizer: signed integer overflow < u.c:twice < u.c:main",
            "u.c:2 in twice",
        ),
        (LSAN, "LeakSanitizer: detected memory leaks < l.c:leak < l.c:main", "l.c:2 in leak"),
        (TSAN, "ThreadSanitizer: data race < t.cc:worker(int, char)", "t.cc:2 in worker(int, char)"),
        (MSAN, "MemorySanitizer: use-of-uninitialized-value < m.c:check < m.c:main", "m.c:7 in check"),
        (SEGV, "AddressSanitizer: SEGV < p.c:parse", "p.c:7 in parse"),
        (
            UNSYMBOLIZED,
            "AddressSanitizer: stack-buffer-overflow < parser:0x4a1b2c < parser:main",
            "0x4a1b2c of parser",
        ),
        ("u.c:2: runtime error: division by zero\n", "UndefinedBehaviorSanitizer: division by zero < u.c:2", "u.c:2"),
        ("==1==ERROR: AddressSanitizer: requested allocation size 0xffff exceeds\n",
         "AddressSanitizer: requested allocation size", ""),
        ("==1==ERROR: AddressSanitizer: attempting double-free on 0x602 in thread T0:\n",
         "AddressSanitizer: attempting double-free", ""),
    ],
    ids=["asan", "ubsan", "lsan", "tsan", "msan", "segv", "unsymbolized", "no stack", "allocation", "double free"],
)  # fmt: skip
@pytest.mark.parametrize("returncode", [0, 1, -6])
def test_a_report_is_told_by_its_kind_and_the_frames_of_user_code(
    printed: str, signature: str, location: str, returncode: int
) -> None:
    crash = crash_of(returncode, printed, ())
    assert crash is not None
    assert (crash.kind, crash.signature, crash.location) == ("exception", signature, location)
    assert crash.type == signature.partition(" <")[0]
    assert crash.report.startswith(crash.report[:5])


def test_one_bug_is_one_finding_wherever_its_addresses_and_lines_are() -> None:
    one = crash_of(1, ASAN.format(kind="heap-use-after-free", function="parse", line=4), ())
    moved = ASAN.format(kind="heap-use-after-free", function="parse", line=9).replace("0x6020", "0x7777")
    assert one is not None
    assert crash_of(1, moved.replace("==19557==", "==3=="), ()).signature == one.signature  # type: ignore[union-attr]
    assert crash_of(0, UBSAN.format(number=5), ()).signature == crash_of(0, UBSAN.format(number=-70), ()).signature  # type: ignore[union-attr]


def test_two_bugs_are_two_findings() -> None:
    reports = [
        ASAN.format(kind=kind, function=function, line=1)
        for kind in ("heap-buffer-overflow", "heap-use-after-free")
        for function in ("parse", "scan")
    ]
    assert len({crash_of(1, printed, ()).signature for printed in (*reports, LSAN, TSAN, MSAN)}) == 7  # type: ignore[union-attr]


def test_recursion_is_told_by_its_cycle_however_deep_it_was() -> None:
    def report(first: int) -> str:
        names = ["even", "odd"] * 20
        frames = "".join(
            f"    #{number} 0x{number:x} in {name} /src/r.c:{number}\n" for number, name in enumerate(names[first:])
        )
        return f"==7==ERROR: AddressSanitizer: stack-overflow on address 0x7ffe (pc 0x1)\n{frames}"

    signatures = {crash_of(1, report(first), ()).signature for first in (0, 1, 6)}  # type: ignore[union-attr]
    assert signatures == {"AddressSanitizer: stack-overflow < r.c:even < r.c:odd"}


@pytest.mark.parametrize(
    ("returncode", "codes", "type_"),
    [
        (0, (), None),
        (1, (), None),
        (3, (3,), "exit code 3"),
        (3, (4,), None),
        (-11, (), "SIGSEGV"),
        (-50, (), "signal 50"),
    ],
)
def test_signals_and_listed_exit_codes_are_crashes(returncode: int, codes: tuple[int, ...], type_: str | None) -> None:
    crash = crash_of(returncode, "output that says nothing", codes)
    assert (None if crash is None else crash.type) == type_


def test_two_assertions_are_two_findings_and_their_lines_do_not_matter() -> None:
    def aborted(line: int, what: str) -> str:
        crash = crash_of(-6, f"parser: /src/parse.c:{line}: int parse(char *): Assertion `{what}' failed.\n", ())
        assert crash is not None
        return crash.signature

    assert aborted(3, "n < 10") == aborted(90, "n < 10") == "SIGABRT < parse.c:int parse(char *) < n < 10"
    assert aborted(3, "n < 10") != aborted(3, "n > 0")
    assert crash_of(-6, "", ()).signature == "SIGABRT"  # type: ignore[union-attr]
