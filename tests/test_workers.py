"""Several workers: how they are named, how they meet, and what is said when they do not."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest

from edge_ran.errors import EnvironmentMissing, UsageError
from edge_ran.workers import Workers, _absent, from_words, meet

TWO = "10.0.0.1:7070,10.0.0.2:7070"


def test_one_process_needs_no_words() -> None:
    assert from_words("", None, {}) is None
    assert from_words("", None, {"TF_CONFIG": json.dumps({"cluster": {"worker": ["a:1"]}})}) is None


def test_words_and_the_environment_say_the_same() -> None:
    said = from_words(TWO, 1, {})
    assert said == Workers(("10.0.0.1:7070", "10.0.0.2:7070"), 1)
    cluster = {"chief": ["10.0.0.1:7070"], "worker": ["10.0.0.2:7070"]}
    for config in (
        {"cluster": {"worker": TWO.split(",")}, "task": {"type": "worker", "index": 1}},
        {"cluster": cluster, "task": {"type": "worker", "index": 0}},
    ):
        assert from_words("", None, {"TF_CONFIG": json.dumps(config)}) == said


@pytest.mark.parametrize(
    ("addresses", "index", "message"),
    [
        (TWO, None, "which of them"),
        ("", 1, "without --workers"),
        (TWO, 2, "there are workers 0 to 1"),
        ("10.0.0.1:7070", 0, "only one machine"),
        ("a:1,a:1", 0, "the same address"),
        ("a:1,b", 0, "'b' is no address"),
        ("a:1,b:99999", 0, "no address"),
    ],
)
def test_words_that_cannot_be(addresses: str, index: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        from_words(addresses, index, {})
    assert "--worker" in caught.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        '{"cluster": {"worker": 3}}',
        '{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "evaluator", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 7}}',
    ],
)
def test_a_tf_config_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError):
        from_words("", None, {"TF_CONFIG": text})


def test_shares_cover_a_batch_once() -> None:
    for count in (3, 7, 64):
        ends = [Workers(("a:1", "b:1", "c:1"), i).share(count) for i in range(3)]
        assert [end for end, _ in ends[1:]] == [end for _, end in ends[:-1]]
        assert (ends[0][0], ends[-1][1]) == (0, count)
        assert max(b - a for a, b in ends) - min(b - a for a, b in ends) <= 1


def addresses(count: int) -> tuple[str, ...]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return tuple(f"127.0.0.1:{port + i}" for i in range(count))


def all_meet(hosts: tuple[str, ...], identities: dict[int, str], patience_s: float = 20.0) -> dict[int, str]:
    """Let some of the workers meet; return what each was told, empty for all is well."""
    said: dict[int, str] = {}

    def one(index: int) -> None:
        try:
            word = meet(Workers(hosts, index), identities[index], patience_s, f"of {index}")
            said[index] = "" if word == "of 0" else f"the word {word}"
        except (EnvironmentMissing, UsageError) as error:
            said[index] = str(error)

    threads = [threading.Thread(target=one, args=(index,)) for index in identities]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def test_they_go_on_when_all_are_there() -> None:
    assert all_meet(addresses(3), {2: "same", 0: "same", 1: "same"}) == {0: "", 1: "", 2: ""}


def test_one_that_trains_something_else_ends_it_for_all() -> None:
    said = all_meet(addresses(2), {0: "same", 1: "other"})
    assert "worker 1 has other pictures, settings or workers" in said[0]
    assert "worker 0 ends the training" in said[1]


def test_who_does_not_answer_is_named() -> None:
    hosts = addresses(3)
    said = all_meet(hosts, {0: "same", 1: "same"}, patience_s=1.0)
    assert said[0] == f"worker 2 ({hosts[2]}) did not answer"
    assert said[1]
    hosts = addresses(2)
    assert all_meet(hosts, {1: "same"}, 0.5)[1] == f"worker 0 ({hosts[0]}) did not answer"


def test_one_that_gave_up_is_not_there() -> None:
    hosts = addresses(3)
    said: dict[int, str] = {}
    first = threading.Thread(target=lambda: said.update(all_meet(hosts, {0: "same"}, patience_s=30.0)))
    first.start()
    host, port = hosts[0].split(":")
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1) as one:
            one.sendall(json.dumps({"worker": 1, "of": 3, "identity": "same"}).encode() + b"\n")
            break
        time.sleep(0.02)
    waited = all_meet(hosts, {2: "same"}, patience_s=0.5)[2]
    assert waited == f"another worker is missing: worker 0 ({hosts[0]}) still waits for it"
    assert all_meet(hosts, {1: "same", 2: "same"}) == {1: "", 2: ""}
    first.join()
    assert said == {0: ""}


def test_one_whose_machine_lost_its_power_is_not_there() -> None:
    """Nobody closes its connection: TensorFlow would wait for it for an hour."""
    hosts = addresses(3)
    said: dict[int, str] = {}
    others = threading.Thread(target=lambda: said.update(all_meet(hosts, {0: "same", 2: "same"}, patience_s=1.5)))
    host, port = hosts[0].split(":")
    others.start()
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1) as silent:
            silent.sendall(json.dumps({"worker": 1, "of": 3, "identity": "same"}).encode() + b"\n")
            others.join()
            break
        time.sleep(0.02)
    assert said[0].startswith(f"worker 1 ({hosts[1]}) ")
    assert said[2]


def test_those_who_never_came_are_named_before_those_who_gave_up() -> None:
    three = Workers(("a:1", "b:1", "c:1"), 0)
    assert str(_absent(three, {}, {2})) == "worker 1 (b:1) did not answer"
    assert str(_absent(three, {}, {1, 2})).startswith(
        "worker 1 (b:1) gave up waiting, was ended, or lost its power or network; worker 2 (c:1) gave"
    )


def test_a_strangers_bytes_are_no_worker() -> None:
    hosts = addresses(2)
    told: list[bytes] = []

    def stranger() -> None:
        host, port = hosts[0].split(":")
        for text in (b"GET / HTTP/1.1\r\n\r\n\n", b'{"worker": "x"}\n', b"[" * 4000 + b"\n"):
            for _ in range(100):
                try:
                    with socket.create_connection((host, int(port)), timeout=1) as connection:
                        connection.sendall(text)
                        told.append(connection.recv(10))
                    break
                except OSError:
                    pass

    thread = threading.Thread(target=stranger)
    thread.start()
    said = all_meet(hosts, {0: "same"}, patience_s=2.0)
    thread.join()
    assert "did not answer" in said[0]


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(EnvironmentMissing, match="cannot listen on"):
        meet(Workers(("192.0.2.1:7070", "127.0.0.1:7071"), 0), "same", 1.0)
