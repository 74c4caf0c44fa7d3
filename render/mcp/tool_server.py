"""The tools and resources by which a language model plays, on the MCP SDK's server."""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ParamSpec, TypeVar

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from playhead import __version__
from playhead.engine.bridge.wire.protocol import MAX_ACTIONS, WorldInfo
from playhead.render.mcp.model_played import Played, PlayedSessions, Seen
from playhead.render.mcp.sized_picture import sized_png
from playhead.render.mcp.world_keys import explain_keys, keys_of
from playhead.world.action import Action, ActionSpace
from playhead.world.errors import ActionError, PlayheadError
from playhead.world.terminal import printable

INSTRUCTIONS = """\
You play a neural world: every frame is dreamed from the last ones and from the buttons you hold. Call `open`,
then `act` with moves and look at the pictures it returns; the world stands still in between. Everything is
recorded: `rewind` or `branch` go back, and what you play from there is a branch of its own; nothing is lost.
The resource playhead://worlds/NAME/keys says what the buttons of a world do."""
LISTED = 100
"""Branches, bookmarks and recordings that are listed at the most: the newest."""
MOST_PICTURES = 8
"""Pictures of one `act`."""

P = ParamSpec("P")
R = TypeVar("R")
Answer = list[str | Image]
"""What a tool returns: a JSON object, and pictures."""
Name = Annotated[str, Field(max_length=100)]
SessionName = Annotated[str, Field(max_length=100, description="As `open` returned it.")]
Width = Annotated[
    int | None, Field(description="Pixels of the pictures' width, 16 to 2048; null: the world's own.")
]


class Move(BaseModel):
    """What is held, all at once, and for how many ticks."""

    buttons: list[str] = Field(default=[], description="Buttons or keys; none: nothing is held.")
    axes: dict[str, float] = Field(default={}, description="Axes by name, from -1 to 1.")
    ticks: int = Field(default=1, ge=1, le=MAX_ACTIONS)


def make_tool_server(sessions: PlayedSessions) -> MCPServer[Any]:
    """The server of worlds and their sessions; its tools are the functions here."""
    server: MCPServer[Any] = MCPServer(
        "Playhead", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING"
    )

    def tool(work: Callable[P, R]) -> None:
        server.tool(structured_output=False)(in_a_sentence(work))

    def open(
        world: Name = "",
        scene: Name = "",
        seed: int | None = None,
        steps: int | None = None,
        width: Width = None,
    ) -> Answer:
        """Opens a session, where it then stands still; returns its name, the buttons, and the first picture.

        Nothing chosen: the first world, its first scene, that scene's seed, the world's denoise steps.
        """
        name, play = sessions.open(world, scene, seed, steps)
        return answer(play, {"session": name, **facts(play)}, [play.look()], width)

    def look(session: SessionName = "", width: Width = None) -> Answer:
        """Returns the newest picture, at the width you choose. Nothing is played."""
        _, play = sessions.find(session)
        return answer(play, {}, [play.look()], width)

    def act(
        moves: Annotated[list[Move], Field(min_length=1, max_length=MAX_ACTIONS)],
        session: SessionName = "",
        pictures: Annotated[int, Field(ge=0, le=MOST_PICTURES, description="Of ticks on the way.")] = 1,
        width: Width = None,
    ) -> Answer:
        """Plays moves one after the other, at most 256 ticks in all; shows pictures, the last of the end."""
        _, play = sessions.find(session)
        actions = _actions(moves, play)
        return answer(play, {"played": len(actions)}, play.act(actions, pictures), width)

    def rewind(ticks: Annotated[int, Field(ge=1)], session: SessionName = "", width: Width = None) -> Answer:
        """Goes back by ticks, at most to the start. What you play next is a branch; what was played stays."""
        _, play = sessions.find(session)
        play.rewind(ticks)
        return answer(play, _exactly(play), [play.look()], width)

    def branch(moment: Name, session: SessionName = "", width: Width = None) -> Answer:
        """Goes to any moment that was played, to play on from there as a branch of its own.

        A moment is a bookmark's name, a tick of the newest branch (`140`), one of branch 2 (`2:140`), or that
        branch's end (`2:`).
        """
        _, play = sessions.find(session)
        play.branch(moment)
        return answer(play, _exactly(play), [play.look()], width)

    def bookmark(name: Name = "", session: SessionName = "") -> Answer:
        """Gives the present moment a name, by which `branch` finds it again."""
        _, play = sessions.find(session)
        named, point = play.bookmark(name)
        return answer(play, {"bookmark": printable(named), "at": str(point)}, [], None)

    def save(name: Name, session: SessionName = "") -> Answer:
        """Saves all that was played, every branch and bookmark, as a recording of that name."""
        _, play = sessions.find(session)
        file, ticks = play.save(name)
        return answer(play, {"file": file, "ticks": ticks}, [], None)

    def close(session: SessionName = "") -> Answer:
        """Ends a session. Its recording stays."""
        name, play = sessions.find(session)
        where = _where(play)
        sessions.end(name)
        return [json.dumps({"closed": True, **where})]

    def list_all(session: SessionName = "") -> Answer:
        """Lists worlds and scenes, the recordings, and the branches and bookmarks of your session."""
        said: dict[str, object] = {
            "worlds": [
                {"world": info.name, "title": info.title, "scenes": [scene.name for scene in info.scenes],
                 "keys": _keys_uri(info.name)}
                for info in sessions.worlds()
            ],
            "recordings": sessions.recordings(LISTED),
        }  # fmt: skip
        try:
            name, play = sessions.find(session)
        except PlayheadError:
            if session:
                raise
            return [json.dumps(said)]
        return [json.dumps({**said, "session": name, **_where(play), **_moments(play)})]

    for work in (open, look, act, rewind, branch, bookmark, save, close):
        tool(work)
    server.tool(name="list", structured_output=False)(in_a_sentence(list_all))
    for info in sessions.worlds():
        _add_keys(server, info, sessions.space(info))
    return server


def _add_keys(server: MCPServer[Any], world: WorldInfo, space: ActionSpace) -> None:
    @server.resource(
        _keys_uri(world.name), name=f"{world.name} keys", mime_type="text/markdown",
        description=f"What the buttons and axes of the world {world.name} are, and its scenes.",
    )  # fmt: skip
    def keys() -> str:
        return explain_keys(world, space)


def _keys_uri(world: str) -> str:
    return f"playhead://worlds/{world}/keys"


def in_a_sentence(work: Callable[P, R]) -> Callable[P, R]:
    """A tool whose refusals reach the model as they are; anything else is a fault, which the SDK logs."""

    @functools.wraps(work)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except PlayheadError as error:
            raise ToolError(str(error)) from None

    return call


def _actions(moves: Sequence[Move], play: Played) -> list[Action]:
    """The actions of moves, a tick each. Raises ActionError for more than may be played at once."""
    total = sum(move.ticks for move in moves)
    if total > MAX_ACTIONS:
        raise ActionError(f"these moves are {total} ticks; at most {MAX_ACTIONS} are played at once")
    aliases, space = keys_of(play.info).aliases, _space(play)
    actions: list[Action] = []
    for move in moves:
        held = frozenset(name if name in space.buttons else aliases.get(name, name) for name in move.buttons)
        action = Action(held, move.axes)
        space.check(action)
        actions += [action] * move.ticks
    return actions


def answer(play: Played, said: dict[str, object], seen: Sequence[Seen], width: int | None) -> Answer:
    """What is said, where the session stands, and the last picture of each tick."""
    pictures = [Image(data=sized_png(one.frame, width), format="png") for one in seen]
    shown = {"pictures_of_ticks": [one.tick for one in seen]} if seen else {}
    return [json.dumps({**said, **_where(play), **shown}), *pictures]


def facts(play: Played) -> dict[str, object]:
    """What a session is, as a model is told when it begins with it."""
    return {
        "world": play.info.name, "scene": play.scene.name, "title": printable(play.scene.title),
        "buttons": list(_space(play).buttons), "axes": list(play.info.axes),
        "ticks_per_second": play.info.ticks_per_second, "recorded": play.recorded,
    }  # fmt: skip


def _space(play: Played) -> ActionSpace:
    """What may be held in a session: without the prompts that its scene lacks."""
    prompts = play.scene.prompts
    space = play.info.action_space
    return space if prompts is None else space.with_prompts(prompts)


def _exactly(play: Played) -> dict[str, object]:
    return {} if play.exact is None else {"exact": play.exact}


def _where(play: Played) -> dict[str, object]:
    point, failure = play.point, play.failure
    at = {"branch": point.branch, "tick": point.tick} if point is not None else {"tick": play.look().tick}
    return {**at, **({"not_recorded": failure} if failure else {})}


def _moments(play: Played) -> dict[str, object]:
    branches, marks = play.moments()
    return {
        "branches": [
            {"branch": b.id, "from": str(b.parent) if b.parent else "the start", "last_tick": b.last}
            for b in branches[-LISTED:]
        ],
        "bookmarks": [{"name": printable(name), "at": str(point)} for name, point in marks[-LISTED:]],
    }
