"""The door for browsers with forms beside the page, behind the same guard."""

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Route

from playhead.engine.bridge.server.limits import Limits
from playhead.engine.bridge.server.registry import Registry
from playhead.engine.bridge.server.server import Server
from playhead.render.demo.forms import Forms
from playhead.render.demo.gradio_app import AT, make_gradio_app
from playhead.render.demo.gradio_guard import GradioGuard
from playhead.render.demo.kept_files import KeptFiles
from playhead.render.web.access import Openings, WebAddress
from playhead.render.web.door import WebDoor


class DemoDoor(WebDoor):
    """As `WebDoor`, with the forms at `/demo/`, where `link` leads."""

    def __init__(
        self,
        server: Server,
        registry: Registry,
        address: WebAddress,
        limits: Limits | None = None,
        framed_by: str = "",
    ) -> None:
        """Binds at once, as `WebDoor`. `framed_by`: the origin of a site that may show it."""
        limits, self._kept = limits or Limits(), KeptFiles()
        try:
            app = make_gradio_app(registry, Forms(server, registry, limits, self._kept))
            openings = Openings(("/", f"{AT}/"), f"{AT}/", f"'self' {framed_by}".strip())
            forms = GradioGuard(app, self._kept, address.secure, framed_by or "'none'")
            beside = [Route(AT, _to_forms), Route(f"{AT}/{{path:path}}", forms)]
            super().__init__(server, registry, address, limits, beside, openings)
        except BaseException:
            self._kept.close()
            raise

    @property
    def link(self) -> str:
        return self.link_to(f"{AT}/")

    def stop(self, seconds: float = 1.0) -> None:
        super().stop(seconds)
        self._kept.close()


async def _to_forms(request: Request) -> RedirectResponse:
    return RedirectResponse(f"{AT}/", 303)
