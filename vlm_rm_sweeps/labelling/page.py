"""The label page: FastAPI serves a static page and a small JSON API, on the loopback address unless another one is named.

Each answer is one request and is stored before the response, so that closing a tab loses nothing. Requests from other sites are
refused: by the Host header (against DNS rebinding) or, where the page has a token, without it; and, if they would change something,
by the Origin header.
"""

import errno
import socket
import webbrowser
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from vlm_rm_sweeps.errors import UserError, reason_of, shown
from vlm_rm_sweeps.labelling.access import LOOPBACK, PARAMETER, THIS_MACHINE, TOKEN, Access
from vlm_rm_sweeps.labelling.agreement import agreement
from vlm_rm_sweeps.labelling.items import LabelJob, Question
from vlm_rm_sweeps.labelling.store import ConflictingLabelError, LabelStore, check_rater

_HOSTS = [LOOPBACK, "localhost"]
_STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_RATERS_KEPT = 100
"""Raters whose questions are kept in memory."""
_LAST_REQUESTS_S = 2
"""Seconds for requests that are being answered at Ctrl-C."""
_SAFE_METHODS = ("GET", "HEAD")
_NO_TOKEN = (
    "This page asks for a token: open it by the address that `vlm-rm label` has printed, or add "
    f"?{PARAMETER}= and the token to its address."
)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NewLabel(_Body):
    """Request: store an answer; `value` None skips the item."""

    rater: str
    item: str
    value: float | None


class Undo(_Body):
    """Request: undo the label with a number, which the page sends so that a double click undoes only one label."""

    rater: str
    number: Annotated[int, Field(ge=1, lt=2**63)]  # what SQLite counts with


class AskAgain(_Body):
    """Request: undo all skips of a rater."""

    rater: str


def create_app(job: LabelJob, access: Access = THIS_MACHINE) -> FastAPI:
    """Make the application that serves the page and its JSON API.

    Args:
        job: What to label.
        access: Who may use it; by default this machine.

    Returns:
        The application, with the label file open.

    Raises:
        UserError: The label file cannot be used, or not written.
    """
    store = LabelStore(job.labels_file, job.scale)
    store.check_writable()
    items = {item.id: item for item in job.items}

    @lru_cache(_RATERS_KEPT)
    def questions(rater: str) -> dict[str, Question]:
        check_rater(rater)
        return {question.id: question for question in job.questions(rater)}

    app = FastAPI(title=job.title, docs_url=None, redoc_url=None, openapi_url=None)
    schemes = ("http", "https") if access.token else ("http",)  # other machines may reach it through a proxy that encrypts

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        given, host = request.query_params.get(PARAMETER), request.headers.get("host")
        # Browsers send cookies to all ports of a machine.
        cookie = f"vlm-rm-label-{request.url.port}"
        if given is not None and access.token and access.admits(given) and request.method in _SAFE_METHODS:
            # The token leaves the address, which others may see on the screen.
            response: Response = RedirectResponse(request.url.path, 303)
            response.set_cookie(cookie, given, httponly=True, samesite="strict")
        elif not access.admits(request.cookies.get(cookie)):
            is_api = request.url.path.startswith("/api/")
            response = JSONResponse({"message": _NO_TOKEN}, 403) if is_api else PlainTextResponse(_NO_TOKEN, 403)
        elif request.method not in _SAFE_METHODS and request.headers.get("origin") not in {
            f"{each}://{host}" for each in schemes
        }:
            response = JSONResponse({"message": "requests from other sites are refused"}, 403)
        else:
            response = await call_next(request)
        response.headers.update(_HEADERS)
        return response

    if access.token is None:
        # Middleware added last runs first: `guard` compares the Origin only with a trusted Host.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False)

    @app.exception_handler(UserError)
    def bad_input(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"message": str(error)}, 400)

    @app.get("/api/job")
    def about() -> dict[str, Any]:
        answers = [{"key": answer.key, "text": answer.text, "value": answer.value} for answer in job.scale.answers]
        return {"title": job.title, "question": job.question, "criterion": job.criterion, "answers": answers}

    @app.get("/api/raters/{rater}")
    def progress(rater: str) -> dict[str, Any]:
        return _progress(store, questions(rater), rater)

    @app.post("/api/labels")
    def label(new: NewLabel) -> Any:
        own = questions(new.rater)
        if new.item not in own:
            raise HTTPException(404, f"there is no item {new.item!r}: reload the page")
        if new.value is not None and job.scale.answer(new.value) is None:
            raise UserError(f"{new.value:g} is not an answer of the scale {job.scale.name!r}: expected one of {_values(job)}")
        try:
            store.add(new.rater, new.item, new.value)
        except ConflictingLabelError as conflict:
            given = "skipped it" if conflict.standing.value is None else f"answered {_text(job, conflict.standing.value)!r}"
            message = f"You have already {given}, perhaps in another tab. That answer is kept; undo it to change it."
            return JSONResponse({"message": message, "progress": _progress(store, own, new.rater)}, 409)
        return _progress(store, own, new.rater)

    @app.post("/api/undo")
    def undo(which: Undo) -> dict[str, Any]:
        own = questions(which.rater)
        store.undo(which.rater, which.number)
        return _progress(store, own, which.rater)

    @app.post("/api/skipped")
    def ask_again(who: AskAgain) -> dict[str, Any]:
        own = questions(who.rater)
        store.undo_skips(who.rater)
        return _progress(store, own, who.rater)

    @app.get("/api/agreement")
    def raters_agreement() -> list[dict[str, Any]]:
        raters = agreement(job.without_others(store.table()), job.scale)
        # JSON has no NaN.
        records = raters.astype(object).where(raters.notna(), None).to_dict("records")
        return [{str(key): value for key, value in record.items()} for record in records]

    @app.get("/items/{item_id}")
    def picture(item_id: str) -> FileResponse:
        if item_id not in items or not items[item_id].is_intact():
            raise HTTPException(404, f"there is no item {item_id!r}, or its file has changed: skip it")
        return FileResponse(items[item_id].file, headers={"Cache-Control": "private, max-age=3600"})

    app.mount("/", StaticFiles(directory=_STATIC, html=True))
    return app


def _text(job: LabelJob, value: float) -> str:
    answer = job.scale.answer(value)
    return answer.text if answer else f"{value:g}"


def _values(job: LabelJob) -> str:
    return ", ".join(f"{answer.value:g}" for answer in job.scale.answers)


def _progress(store: LabelStore, questions: dict[str, Question], rater: str) -> dict[str, Any]:
    """Describe a rater's progress: counts, the next question, the one after it (to preload) and the label to undo next."""
    given = [label for label in store.standing(rater) if label.item in questions]
    done = {label.item for label in given}
    open_questions = [question for question in questions.values() if question.id not in done]
    upcoming = [_described(question) for question in open_questions[:2]]
    return {
        "total": len(questions),
        "answered": sum(label.value is not None for label in given),
        "skipped": sum(label.value is None for label in given),
        "next": upcoming[0] if upcoming else None,
        "after": upcoming[1] if len(upcoming) > 1 else None,
        "last": given[-1].number if given else None,
    }


def _described(question: Question) -> dict[str, Any]:
    return {"id": question.id, "shown": [{"id": item.id, "video": item.is_video} for item in question.shown]}


def serve(job: LabelJob, host: str, port: int, open_browser: bool, say: Callable[[str], None]) -> None:
    """Serve the label page until Ctrl-C.

    Args:
        job: What to label.
        host: Address of this machine to listen on. If it is not a loopback address, the page asks for a token.
        port: 0 takes any free port.
        open_browser: Whether to open the page in the default browser.
        say: Prints a line.

    Raises:
        UserError: The address, the port, the token or the label file cannot be used.
    """
    access = Access.of(host)
    app = create_app(job, access)
    listening = _listen(host, port)
    verb = "label" if job.pair_seed is None else "compare"
    url = access.address(listening.getsockname()[1])
    say(
        f"{len(job.items)} items to {verb} at {url} (Ctrl-C stops the server; each label is saved at once)\nlabels: {job.labels_file}"
    )
    if access.is_own:
        say(f"The page asks for the token in {TOKEN}: add ?{PARAMETER}= and the token to the address.")
    if open_browser:
        webbrowser.open(url)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_LAST_REQUESTS_S)
    _PatientServer(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Open the page's socket.

    Raises:
        UserError: The address is none of this machine's, or the port is taken.
    """
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        if getattr(error, "errno", None) not in (errno.EADDRINUSE, errno.EACCES):
            raise UserError(
                f"--host {shown(host)}: this machine cannot listen there ({reason}): name one of its own addresses"
            ) from error
        raise UserError(f"port {port} cannot be used ({reason}): choose another with --port, or 0 for any free one") from error


class _PatientServer(uvicorn.Server):
    """Ends in order, also if Ctrl-C is pressed more than once: uvicorn's own would end with a traceback."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True
