"""What failed for the moment is tried again: how often, for which failures, how long for, and what is counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from registree.errors import AuthError, InvalidInput, ObjectMissing, ReadOnly, RegError, StoreError
from registree.execute import Meter, Transferred
from registree.store.base import Sent, Store, nobody
from registree.store.directory import DirectoryStore
from registree.store.retrying import RetryingStore

KEY = "packs/ab/" + "ab" * 32
CONTENT = b"0123456789"
NEVER = 1_000_000


def tried_again(store: Store, meter: Meter, retries: int) -> RetryingStore:
    """Wrap a store as a remote is."""
    return RetryingStore(lambda: store, store.address, meter, retries, writable=store.writable)


class Failing(Store):
    """A store in a folder whose first operations fail."""

    def __init__(self, folder: Path, failures: int, error: Callable[[], RegError]) -> None:
        self._inner = DirectoryStore(str(folder))
        self.address = self._inner.address
        self.failures = failures
        self.asked = 0
        self._error = error
        self._lock = threading.Lock()

    def _ask(self) -> None:
        with self._lock:
            self.asked += 1
            if self.failures:
                self.failures -= 1
                raise self._error()

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        self._ask()
        return self._inner.read(key, offset, length)

    def size(self, key: str) -> int | None:
        self._ask()
        return self._inner.size(key)

    def write(self, key: str, content: bytes) -> None:
        self._ask()
        self._inner.write(key, content)

    def upload(self, key: str, path: str, sent: Sent = nobody) -> None:
        self._ask()
        self._inner.upload(key, path, sent)

    def delete(self, key: str) -> None:
        self._ask()
        self._inner.delete(key)

    def keys(self, folder: str) -> Iterator[tuple[str, int]]:
        rows = list(self._inner.keys(folder))
        yield from rows[:1]
        self._ask()
        yield from rows[1:]


def busy() -> RegError:
    return StoreError("the store is busy", hint="run it again", transient=True)


def unreachable() -> RegError:
    return StoreError("no connection", hint="run it again", transient=True, unreachable=True)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited for, which take no time."""
    found: list[float] = []
    monkeypatch.setattr("registree.store.retrying.time.sleep", found.append)
    return found


@pytest.fixture
def failing(tmp_path: Path, waits: list[float]) -> Callable[..., Failing]:
    """Make a store with an object in it, that then fails some times."""

    def made(failures: int, error: Callable[[], RegError] = busy) -> Failing:
        DirectoryStore(str(tmp_path / "store")).write(KEY, CONTENT)
        return Failing(tmp_path / "store", failures, error)

    return made


@pytest.fixture
def operation(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Store], object]:
    """An operation of stores, by its name."""
    (tmp_path / "file").write_bytes(CONTENT)
    operations: dict[str, Callable[[Store], object]] = {
        "read": lambda store: store.read(KEY),
        "read range": lambda store: store.read(KEY, 2, 3),
        "size": lambda store: store.size(KEY),
        "write": lambda store: store.write(KEY, CONTENT),
        "upload": lambda store: store.upload(KEY, str(tmp_path / "file")),
        "delete": lambda store: store.delete(KEY),
        "keys": lambda store: list(store.keys("packs")),
    }
    return operations[request.param]


EVERY = pytest.mark.parametrize(
    "operation", ["read", "read range", "size", "write", "upload", "delete", "keys"], indirect=True
)


@EVERY
def test_operation_is_tried_again_until_it_succeeds(
    failing: Callable[..., Failing], operation: Callable[[Store], object]
) -> None:
    inner = failing(4)
    operation(tried_again(inner, Meter(), 6))
    assert inner.asked == 5


@EVERY
def test_operation_is_tried_at_most_as_often_as_was_said(
    failing: Callable[..., Failing], operation: Callable[[Store], object]
) -> None:
    inner = failing(NEVER)
    with pytest.raises(StoreError, match="the store is busy"):
        operation(tried_again(inner, Meter(), 3))
    assert inner.asked == 4


@EVERY
def test_no_retry_is_one_request(failing: Callable[..., Failing], operation: Callable[[Store], object]) -> None:
    inner = failing(NEVER)
    with pytest.raises(StoreError):
        operation(tried_again(inner, Meter(), 0))
    assert inner.asked == 1


def test_result_is_that_of_the_store(failing: Callable[..., Failing], tmp_path: Path) -> None:
    inner = failing(1)
    store = tried_again(inner, Meter(), 6)
    assert store.read(KEY, 2, 3) == b"234"
    inner.failures = 1
    assert store.size(KEY) == 10
    inner.failures = 2
    store.write(KEY + "1", b"other")
    inner.failures = 1
    assert sorted(store.keys("packs")) == [(KEY, 10), (KEY + "1", 5)]
    inner.failures = 1
    store.delete(KEY)
    assert store.size(KEY) is None
    assert (store.address, store.writable) == (inner.address, True)


@pytest.mark.parametrize(
    "error",
    [
        lambda: StoreError("there is no such bucket"),
        lambda: AuthError("refused"),
        lambda: ReadOnly("only to be read"),
        lambda: InvalidInput("malformed"),
        lambda: ObjectMissing(KEY, "here"),
    ],
)
def test_failure_that_stays_is_not_tried_again(
    failing: Callable[..., Failing], waits: list[float], error: Callable[[], RegError]
) -> None:
    inner = failing(NEVER, error)
    with pytest.raises(type(error())):
        tried_again(inner, Meter(), 6).read(KEY)
    assert inner.asked == 1
    assert waits == []


@pytest.mark.parametrize(("retries", "asked"), [(0, 1), (1, 2), (2, 3), (6, 3), (100, 3)])
def test_store_that_cannot_be_reached_is_tried_few_times(
    failing: Callable[..., Failing], retries: int, asked: int
) -> None:
    inner = failing(NEVER, unreachable)
    with pytest.raises(StoreError, match="no connection"):
        tried_again(inner, Meter(), retries).read(KEY)
    assert inner.asked == asked


def test_waits_grow_and_are_bounded(failing: Callable[..., Failing], waits: list[float]) -> None:
    tried_again(failing(12), Meter(), 20).read(KEY)
    longest = [min(8.0, 0.25 * 2**number) for number in range(12)]
    assert len(waits) == 12
    assert all(most / 2 <= waited <= most for waited, most in zip(waits, longest, strict=True))


def test_two_stores_wait_for_different_times(failing: Callable[..., Failing], waits: list[float]) -> None:
    tried_again(failing(6), Meter(), 6).read(KEY)
    tried_again(failing(6), Meter(), 6).read(KEY)
    assert waits[:6] != waits[6:]


def test_first_success_waits_for_nothing(failing: Callable[..., Failing], waits: list[float]) -> None:
    tried_again(failing(0), Meter(), 6).read(KEY)
    assert waits == []


def test_store_that_fails_too_often_is_given_up(failing: Callable[..., Failing]) -> None:
    inner = failing(NEVER)
    store = tried_again(inner, Meter(), 100)
    with pytest.raises(StoreError, match=r"the store is busy \(given up: .* failed too often\)") as caught:
        store.read(KEY)
    assert inner.asked == 61
    assert caught.value.transient
    assert caught.value.hint == "run it again"
    with pytest.raises(StoreError, match="given up"):
        store.size(KEY)
    assert inner.asked == 62


def test_success_earns_a_retry_now_and_then(failing: Callable[..., Failing]) -> None:
    inner = failing(NEVER)
    store = tried_again(inner, Meter(), 100)
    with pytest.raises(StoreError):
        store.read(KEY)
    inner.failures = 0
    for _ in range(11):
        store.read(KEY)
    inner.failures, inner.asked = NEVER, 0
    with pytest.raises(StoreError, match="given up"):
        store.read(KEY)
    assert inner.asked == 2


def test_success_earns_no_more_than_there_was_at_first(failing: Callable[..., Failing]) -> None:
    inner = failing(0)
    store = tried_again(inner, Meter(), 100)
    for _ in range(100):
        store.size(KEY)
    inner.failures, inner.asked = NEVER, 0
    with pytest.raises(StoreError, match="given up"):
        store.read(KEY)
    assert inner.asked == 61


def test_hiccups_of_a_long_run_are_no_reason_to_give_up(failing: Callable[..., Failing]) -> None:
    inner = failing(0)
    store = tried_again(inner, Meter(), 6)
    for number in range(2000):
        inner.failures = 1 if number % 15 == 0 else 0
        store.size(KEY)


def test_budget_is_one_for_all_threads(failing: Callable[..., Failing]) -> None:
    inner = failing(NEVER)
    store = tried_again(inner, Meter(), 100)

    def ask(_: int) -> str:
        with pytest.raises(StoreError) as caught:
            store.read(KEY)
        return caught.value.message

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(ask, range(8)))
    assert all("given up" in text for text in said)
    assert inner.asked == 60 + 8


def test_budget_of_one_store_is_not_that_of_another(failing: Callable[..., Failing]) -> None:
    with pytest.raises(StoreError):
        tried_again(failing(NEVER), Meter(), 100).read(KEY)
    assert tried_again(failing(6), Meter(), 6).read(KEY) == CONTENT


def test_meter_counts_requests_retries_and_bytes(failing: Callable[..., Failing], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1234567")
    meter = Meter()
    inner = failing(2)
    store = tried_again(inner, meter, 6)
    store.read(KEY, 1, 4)
    assert replace(meter.so_far, seconds=0.0) == Transferred(requests=3, retries=2, sent=0, received=4)
    store.write(KEY, b"12345")
    assert replace(meter.so_far, seconds=0.0) == Transferred(requests=4, retries=2, sent=5, received=4)
    inner.failures = 1
    store.upload(KEY, str(tmp_path / "file"))
    assert replace(meter.so_far, seconds=0.0) == Transferred(requests=6, retries=3, sent=12, received=4)
    store.size(KEY)
    store.delete(KEY)
    list(store.keys("packs"))
    assert replace(meter.so_far, seconds=0.0) == Transferred(requests=9, retries=3, sent=12, received=4)


def test_meter_counts_no_bytes_of_what_failed(failing: Callable[..., Failing]) -> None:
    meter = Meter()
    with pytest.raises(StoreError):
        tried_again(failing(NEVER), meter, 2).write(KEY, CONTENT)
    assert replace(meter.so_far, seconds=0.0) == Transferred(requests=3, retries=2, sent=0, received=0)


def test_range_is_copied_in_spite_of_failures(failing: Callable[..., Failing], tmp_path: Path) -> None:
    store = tried_again(failing(2), Meter(), 6)
    with (tmp_path / "target").open("w+b") as file:
        store.copy_range(KEY, 2, 5, file.fileno(), 1)
    assert (tmp_path / "target").read_bytes() == b"\x0023456"


def test_memory_is_filled_in_spite_of_failures(failing: Callable[..., Failing]) -> None:
    meter, memory = Meter(), bytearray(5)
    tried_again(failing(2), meter, 6).fill(KEY, 2, memoryview(memory))
    assert memory == b"23456"
    assert replace(meter.so_far, seconds=0.0) == Transferred(requests=3, retries=2, sent=0, received=5)


def test_marker_is_made_in_spite_of_failures(failing: Callable[..., Failing]) -> None:
    inner = failing(2)
    store = tried_again(inner, Meter(), 6)
    store.ensure_marker()
    inner.failures = 2
    store.check_format()


def test_error_that_is_no_error_of_stores_passes_at_once(tmp_path: Path, waits: list[float]) -> None:
    class Broken(Failing):
        def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
            self.asked += 1
            raise KeyError(key)

    inner = Broken(tmp_path, 0, busy)
    with pytest.raises(KeyError):
        tried_again(inner, Meter(), 6).read(KEY)
    assert inner.asked == 1
