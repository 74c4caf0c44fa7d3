"""The control of a session as a lease: one holds it, another may ask for it, the owner may always have it."""

from dataclasses import dataclass

from playhead.engine.bridge.wire.protocol import LOCAL


@dataclass(frozen=True)
class ControlState:
    """Who plays the session of a window, and who asks to: names of programs, "" for the person and nobody.

    `lockstep`: the world stands still but for the program's steps.
    """

    holder: str = ""
    asking: str = ""
    lockstep: bool = False


@dataclass
class Lease:
    """Who controls a session, by the client's token ("": nobody), who may always have it, who asks for it."""

    owner: str
    holder: str
    asking: str = ""

    @property
    def concerned(self) -> set[str]:
        """The tokens of the clients who own the session, control it or ask for that."""
        return {self.owner, self.holder, self.asking} - {"", LOCAL}

    def take(self, client: str) -> bool:
        """Gives the control to `client` if it is free or its own; else notes that it asks, if nobody does."""
        if self.holder in ("", client) or client == self.owner:
            self.holder = client
            self.asking = "" if self.asking == client else self.asking
        else:
            self.asking = self.asking or client
        return self.holder == client

    def release(self, client: str) -> bool:
        """Takes from a client what it holds and asks for. Returns whether that was anything.

        The control goes back to the person at this machine, or else over to the one who asks for it.
        """
        concerned = client in (self.holder, self.asking)
        if self.asking == client:
            self.asking = ""
        if self.holder == client:
            if self.owner == LOCAL:
                self.holder = LOCAL
            else:
                self.holder, self.asking = self.asking, ""
        return concerned

    def grant(self, client: str) -> bool:
        """Hands the control from its holder or owner to the client that asks."""
        if client not in (self.holder, self.owner) or not self.asking:
            return False
        self.holder, self.asking = self.asking, ""
        return True
