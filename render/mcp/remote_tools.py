"""The tools that a model has besides where it plays on a running server: others may play there too."""

from typing import Any

from mcp.server.mcpserver import MCPServer

from playhead.render.mcp.remote_model_play import Wanted
from playhead.render.mcp.remote_sessions import RemoteSessions
from playhead.render.mcp.tool_server import Answer, SessionName, Width, answer, facts, in_a_sentence
from playhead.world.terminal import printable


def add_remote_tools(server: MCPServer[Any], sessions: RemoteSessions) -> None:
    """Adds them to the tools of a server."""

    def join(session: SessionName = "", width: Width = None) -> Answer:
        """Goes on with a session that somebody else plays, and asks for its control; shows a picture of it.

        `session` is what stands behind `#watch=` in the link of a page; empty: that of the server's window.
        Whoever plays it has to hand the control over: until then you can `look`, and ask again by `control`.
        """
        name, play = sessions.join(session)
        return answer(play, {"session": name, **facts(play)}, [play.look()], width)

    def control(want: Wanted, session: SessionName = "") -> Answer:
        """Asks for the control of a session (take), gives it back (release), or to who asks for it (grant).

        A session stands still while you control it, and runs at its own rate while somebody else does.
        """
        _, play = sessions.find(session)
        found = play.control(want)
        said = {
            "in_control": found.in_control, "holder": printable(found.holder),
            "asking": printable(found.asking),
        }  # fmt: skip
        return answer(play, said, [], None)

    for work in (join, control):
        server.tool(structured_output=False)(in_a_sentence(work))
