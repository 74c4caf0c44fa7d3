"""A fleet of session hosts: Ray places and restarts them; this finds one for a client."""

import contextlib
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from playhead.engine.bridge.wire.auth import ServerKeys
from playhead.engine.bridge.wire.protocol import BridgeError
from playhead.engine.fleet.kept_session import Keeper
from playhead.engine.fleet.session_host import HostOptions, HostPlace, SessionHost
from playhead.world.errors import PlayheadError
from playhead.world.extras import install
from playhead.world.terminal import printable

OBJECT_STORE = 100 * 2**20
"""Bytes that a Ray of our own sets apart for what its processes hand each other: a few snapshots."""
TRIES = 4
"""Times that a Ray of our own may fail to come up."""
REACHING = 10.0
"""Seconds that a connection to a Ray elsewhere may take."""
ANSWER = 2.0
"""Seconds that a host which is up takes at the most to say where it is."""
MOVING = 60.0
"""Seconds that another host may take to go on with a session."""
ASKING = 64
"""Clients who are found a host at once; others are to ask again."""
Told = TypeVar("Told")


def import_ray() -> Any:  # noqa: ANN401 - a module
    """Ray, which says nothing of its use to anybody. Raises PlayheadError where it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise PlayheadError(f"--ray needs Ray ({error}): {install('fleet')}") from None
    return ray


class Fleet:
    """Session hosts on an accelerator each. `find` may be called by any thread, and waits for none."""

    def __init__(
        self, address: str, options: HostOptions, count: int | None, trusted: ServerKeys | None
    ) -> None:
        """Joins the Ray at `address`, or begins one of this machine's own (`local`), and starts the hosts.

        `count`: how many; None: one for each GPU that Ray has, or else for each CPU. Raises PlayheadError for
        a Ray that cannot be had, or that has other machines where there are no keys.
        """
        self._ray = ray = import_ray()
        self._trusted = trusted
        _join(ray, address, count)
        try:
            self._start(options, count)
        except BaseException:
            self.close()
            raise

    def _start(self, options: HostOptions, count: int | None) -> None:
        ray, has = self._ray, self._ray.cluster_resources()
        if self._trusted is None and sum(node["Alive"] for node in ray.nodes()) > 1:
            raise PlayheadError("a Ray of several machines needs keys: give --key and --clients")
        gpus = int(has.get("GPU", 0))
        taken = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        count = count or gpus or int(has.get("CPU", 1))
        # Found by its name: an actor's handle among the arguments of another would keep that from restarts.
        name = f"keeper-{secrets.token_urlsafe(8)}"
        keeper = ray.remote(num_cpus=0, max_restarts=-1)(Keeper)
        self._keeper = keeper.options(name=name).remote(options.limits.idle)
        actor = ray.remote(max_restarts=-1, max_concurrency=8, **taken)(_PlacedHost)
        self._hosts = [actor.remote(options, name) for _ in range(count)]
        self._moving = threading.Lock()
        self._asking = 0
        self._pool = ThreadPoolExecutor(8, "fleet")

    @property
    def count(self) -> int:
        """How many hosts there are, those that are being started too."""
        return len(self._hosts)

    def wait(self, seconds: float) -> None:
        """Waits for the first host. Raises PlayheadError where none comes up, with what it said."""
        until = time.monotonic() + seconds
        first = [host.place.remote(self._allowed()) for host in self._hosts]
        ready, _ = self._ray.wait(first, num_returns=1, timeout=seconds)
        while not any(isinstance(place, HostPlace) for place in self._told(ready)):
            problem = next(
                iter(self._told(ready)), "it takes too long; see what Ray has free by `ray status`"
            )
            left = until - time.monotonic()
            rest = [ref for ref in first if ref not in ready]
            if not rest or left <= 0:
                raise PlayheadError(f"no session host has come up: {_words(problem)}")
            ready += self._ray.wait(rest, num_returns=1, timeout=left)[0]

    def find(self, session: str, token: str) -> "Future[HostPlace]":
        """A host for a client: the one that plays its session, or one that goes on with it; or any with room.

        Of those the one with the most free memory. Raises BridgeError where too many ask; so does the future,
        where no host can be had, or a session is not known to whoever brings that `token`.
        """
        if self._asking >= ASKING:
            raise BridgeError("busy", "many ask for a host just now; try again in a moment")
        self._asking += 1

        def find() -> HostPlace:
            try:
                return self._find(session, token)
            finally:
                self._asking -= 1

        return self._pool.submit(find)

    def _find(self, session: str, token: str) -> HostPlace:
        allowed = self._allowed()
        places = self._ask(lambda host: host.place.remote(allowed), HostPlace)
        if not places:
            raise BridgeError("busy", "no session host is up just now; try again in a moment")
        if not session:
            return places[self._roomiest(places)]
        with self._moving:
            plays = self._ask(lambda host: host.plays.remote(session), bool)
            host = next((n for n, played in plays.items() if played and n in places), None)
            return places[self._move(session, token, places) if host is None else host]

    def _move(self, session: str, token: str, places: dict[int, HostPlace]) -> int:
        """Has a live host go on with a session. Returns which one."""
        ray, keeper = self._ray, self._keeper
        data = ray.get(keeper.find.remote(session, token), timeout=MOVING)
        if data is None:
            raise BridgeError("unknown_session", "there is no such session; it was closed, expired or lost")
        number = self._roomiest(places)
        try:
            host = ray.get(self._hosts[number].adopt.remote(data), timeout=MOVING)
        except Exception as error:
            raise BridgeError("busy", f"a host could not go on with the session: {_words(error)}") from None
        ray.get(keeper.move.remote(session, host), timeout=MOVING)
        logging.getLogger("playhead").warning("a session was moved to the host at %s", places[number].address)
        return number

    @staticmethod
    def _roomiest(places: dict[int, HostPlace]) -> int:
        room = [number for number, place in places.items() if place.room > 0]
        if not room:
            raise BridgeError("limit", "no session host has room for a session more; try again later")
        return max(room, key=lambda number: (places[number].free, places[number].room))

    def _ask(self, ask: Callable[[Any], Any], kind: type[Told]) -> dict[int, Told]:
        """What each host says, by its number, of those that answer in time: others are down or starting."""
        asked = {}
        for number, host in enumerate(self._hosts):
            with contextlib.suppress(Exception):  # Ray's errors for what is down are many
                asked[ask(host)] = number
        ready, late = self._ray.wait([*asked], num_returns=len(asked), timeout=ANSWER)
        for reference in late:
            self._ray.cancel(reference)
        told = zip(ready, self._told(ready), strict=True)
        return {asked[reference]: found for reference, found in told if isinstance(found, kind)}

    def _told(self, ready: Sequence[Any]) -> list[Any]:
        """What was answered, errors among it."""
        found = []
        for reference in ready:
            try:
                found.append(self._ray.get(reference, timeout=ANSWER))
            except Exception as error:
                found.append(error)
        return found

    def _allowed(self) -> list[bytes]:
        """The public keys of who may connect, as the folder has them now."""
        return self._trusted.listed() if self._trusted is not None else []

    def close(self) -> None:
        """Ends all hosts, and a Ray of our own with them."""
        self._ray.shutdown()


def _join(ray: Any, address: str, count: int | None) -> None:  # noqa: ANN401 - a module
    """Joins the Ray at an address or, where that is `local`, begins one with `count` CPUs.

    Ray gives its own processes half a minute to come up, which a busy machine may not do the first time.
    """
    local = address == "local"
    if address not in ("local", "auto"):
        _check_reached(address)
    own = {"num_cpus": count, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    for left in reversed(range(TRIES if local else 1)):
        try:
            ray.init(address, log_to_driver=False, configure_logging=False, **(own if local else {}))
            return
        except Exception as error:  # of many kinds, some of them its own
            ray.shutdown()
            said = next(iter(str(error).splitlines()), type(error).__name__)
            if not left:
                begun = f"there is no Ray to join at {address} ({said}); --ray local begins one"
                raise PlayheadError(f"Ray does not come up here: {said}" if local else begun) from None


def _check_reached(address: str) -> None:
    """Raises PlayheadError for an address at which nothing listens: Ray would ask there for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        raise PlayheadError(
            f"--ray {printable(address)} is no address of a Ray; it has the form 192.0.2.1:6379, or is auto "
            "or local"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHING).close()
    except (OSError, OverflowError) as error:
        said = f"there is no Ray at {printable(address)} ({error}); start one by `ray start --head`"
        raise PlayheadError(f"{said}, or give --ray local") from None


class _PlacedHost(SessionHost):
    """A session host at the address that Ray knows its machine by."""

    def __init__(self, options: HostOptions, keeper: str) -> None:
        """`keeper`: the name of the actor that keeps snapshots."""
        super().__init__(options, _RemoteKeeper(keeper), import_ray().util.get_node_ip_address())


class _RemoteKeeper:
    """The keeper of that name, from another of Ray's processes. Raises Ray's errors while it is down."""

    def __init__(self, name: str) -> None:
        self._ray = import_ray()
        self._actor = self._ray.get_actor(name)

    def keep(self, host: str, session: str, token: str, data: bytes) -> None:
        self._ray.get(self._actor.keep.remote(host, session, token, data), timeout=MOVING)

    def report(self, host: str, sessions: list[str]) -> None:
        self._ray.get(self._actor.report.remote(host, sessions), timeout=MOVING)


def _words(problem: object) -> str:
    """The sentence of an error that came from another process, without its traceback."""
    cause = getattr(problem, "cause", None) or problem
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return re.sub(r"^[\w.]+: ", "", lines[-1].strip()) if lines else type(cause).__name__
