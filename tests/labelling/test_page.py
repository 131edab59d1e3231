"""The label page's JSON API: what it stores, and which requests it refuses."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from disk import full_disk
from fastapi.testclient import TestClient

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.labelling.access import Access
from vlm_rm_sweeps.labelling.items import LabelItem, LabelJob, videos_to_label
from vlm_rm_sweeps.labelling.page import create_app
from vlm_rm_sweeps.labelling.scales import CLOSER, SHARE, YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore

URL = "http://127.0.0.1:8000"


@pytest.fixture
def job(tmp_path: Path) -> LabelJob:
    files = [tmp_path / f"{name}.png" for name in "cab"]
    for file in files:
        file.write_bytes(file.name.encode())
    items = [LabelItem(f"item-{file.stem}", file, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
    return LabelJob("states", "In the goal?", "upright", items, YES_NO, tmp_path / "labels.sqlite")


@pytest.fixture
def client(job: LabelJob) -> TestClient:
    return TestClient(create_app(job), base_url=URL, headers={"Origin": URL}, raise_server_exceptions=False)


def post(client: TestClient, path: str, **body: Any) -> Any:
    return client.post(path, json=body)


def test_a_rater_goes_through_all_items(client: TestClient, job: LabelJob) -> None:
    assert client.get("/api/job").json()["answers"][0] == {"key": "1", "text": "yes", "value": 1.0}
    state = client.get("/api/raters/anna").json()
    assert state == {
        "total": 3,
        "answered": 0,
        "skipped": 0,
        "next": {"id": "item-a", "shown": [{"id": "item-a", "video": False}]},
        "after": {"id": "item-b", "shown": [{"id": "item-b", "video": False}]},
        "last": None,
    }
    for value in (1, None, 0):
        state = post(client, "/api/labels", rater="anna", item=state["next"]["id"], value=value).json()
    assert (state["answered"], state["skipped"], state["next"]) == (2, 1, None)
    assert [(label.item, label.value) for label in LabelStore(job.labels_file, YES_NO).standing("anna")] == [
        ("item-a", 1.0),
        ("item-b", None),
        ("item-c", 0.0),
    ]
    state = post(client, "/api/skipped", rater="anna").json()
    assert state["next"]["id"] == "item-b"
    assert client.get("/api/raters/bert").json()["answered"] == 0


def test_a_double_submit_counts_once_and_a_double_undo_too(client: TestClient) -> None:
    for _ in range(2):
        state = post(client, "/api/labels", rater="anna", item="item-a", value=1.0).json()
    assert state["answered"] == 1
    state = post(client, "/api/labels", rater="anna", item="item-b", value=1.0).json()
    for _ in range(2):
        undone = post(client, "/api/undo", rater="anna", number=state["last"]).json()
        assert (undone["answered"], undone["next"]["id"]) == (1, "item-b")


def test_another_answer_from_another_tab_is_refused_and_reported(client: TestClient) -> None:
    post(client, "/api/labels", rater="anna", item="item-a", value=1.0)
    refused = post(client, "/api/labels", rater="anna", item="item-a", value=0.0)
    assert refused.status_code == 409
    assert "already answered 'yes'" in refused.json()["message"]
    assert refused.json()["progress"]["next"]["id"] == "item-b"


def test_agreement_of_two_raters(client: TestClient) -> None:
    for item, first, second in (("item-a", 1, 1), ("item-b", 0, 0), ("item-c", None, 0)):
        post(client, "/api/labels", rater="anna", item=item, value=first)
        post(client, "/api/labels", rater="bert", item=item, value=second)
    post(client, "/api/labels", rater="carl", item="item-c", value=0)
    pairs = client.get("/api/agreement").json()
    assert pairs[0] == {"first": "anna", "second": "bert", "items": 2, "equal": 1.0, "kappa": 1.0}
    assert pairs[1] == {"first": "anna", "second": "carl", "items": 0, "equal": None, "kappa": None}


def test_a_rater_compares_pairs(job: LabelJob) -> None:
    pairs = replace(job, scale=CLOSER, pair_seed=0, labels_file=job.labels_file.with_name("pairs.sqlite"))
    client = TestClient(create_app(pairs), base_url=URL, headers={"Origin": URL})
    assert [each["key"] for each in client.get("/api/job").json()["answers"]] == ["arrowleft", "arrowdown", "arrowright"]
    asked = [question.id for question in pairs.questions("anna")]
    state = client.get("/api/raters/anna").json()
    assert (state["total"], state["next"]["id"]) == (len(asked), asked[0])
    left, right = (each["id"] for each in state["next"]["shown"])
    assert {client.get(f"/items/{each}").status_code for each in (left, right)} == {200}
    state = post(client, "/api/labels", rater="anna", item=asked[0], value=0.5).json()
    assert state["answered"] == 1
    assert post(client, "/api/labels", rater="anna", item=asked[0], value=0.0).status_code == 409
    assert post(client, "/api/labels", rater="anna", item="item-a", value=0.0).status_code == 404
    assert [(label.item, label.value) for label in LabelStore(pairs.labels_file, CLOSER).standing("anna")] == [(asked[0], 0.5)]
    undone = post(client, "/api/undo", rater="anna", number=state["last"]).json()
    assert (undone["answered"], undone["next"]["id"]) == (0, asked[0])


@pytest.mark.parametrize("number", [0, -1, 2**63, 10**22, "1", 1.5])
def test_a_number_that_no_label_has_is_refused(client: TestClient, number: Any) -> None:
    assert post(client, "/api/undo", rater="anna", number=number).status_code == 422


def test_agreement_over_shared_pairs(job: LabelJob) -> None:
    pairs = replace(job, scale=CLOSER, pair_seed=0, labels_file=job.labels_file.with_name("pairs.sqlite"))
    client = TestClient(create_app(pairs), base_url=URL, headers={"Origin": URL})
    shared = pairs.questions("anna")[0].id
    for rater in ("anna", "bert"):
        post(client, "/api/labels", rater=rater, item=shared, value=1)
    LabelStore(pairs.labels_file, CLOSER).add("anna", "x+y", 1.0)  # of states that are gone
    LabelStore(pairs.labels_file, CLOSER).add("bert", "x+y", 0.0)
    (found,) = client.get("/api/agreement").json()
    assert (found["items"], found["equal"]) == (1, 1.0)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.7:8000", ""])
def test_foreign_hosts_are_refused(client: TestClient, host: str) -> None:
    for path in ("/", "/api/job", "/items/item-a"):
        assert client.get(path, headers={"Host": host}).status_code == 400
    foreign = {"Host": host, "Origin": f"http://{host}"}
    assert client.post("/api/labels", json={"rater": "a", "item": "item-a", "value": 1}, headers=foreign).status_code == 400
    assert client.get("/", headers={"Host": "localhost:8000"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9999", "https://127.0.0.1:8000", "null", ""])
@pytest.mark.parametrize("path", ["/api/labels", "/api/undo", "/api/skipped"])
def test_requests_of_other_sites_change_nothing(client: TestClient, job: LabelJob, path: str, origin: str) -> None:
    stored = LabelStore(job.labels_file, YES_NO).add("anna", "item-a", None)
    bodies: dict[str, dict[str, Any]] = {
        "/api/labels": {"item": "item-b", "value": 1},
        "/api/undo": {"number": stored.number},
        "/api/skipped": {},
    }
    assert client.post(path, json={"rater": "anna"} | bodies[path], headers={"Origin": origin}).status_code == 403
    assert LabelStore(job.labels_file, YES_NO).standing("anna") == [stored]


TOKEN = "a-token-of-a-test"
ELSEWHERE = "http://192.168.0.7:8000"


@pytest.fixture
def reachable(job: LabelJob) -> TestClient:
    """A page that other machines reach."""
    app = create_app(job, Access("0.0.0.0", TOKEN))
    return TestClient(app, base_url=ELSEWHERE, headers={"Origin": ELSEWHERE}, raise_server_exceptions=False)


@pytest.mark.parametrize("address", ["/{}", "/api/job{}", "/items/item-a{}", "/label.js{}", "/no-such-page{}"])
@pytest.mark.parametrize("query", ["", "?token=", "?token=another-token-of-a-test"])
def test_without_its_token_a_page_that_others_reach_tells_nothing(reachable: TestClient, address: str, query: str) -> None:
    refused = reachable.get(address.format(query))
    assert refused.status_code == 403
    assert "asks for a token: open it by the address that `vlm-rm label` has printed" in refused.text
    assert TOKEN not in refused.text
    assert post(reachable, "/api/labels", rater="anna", item="item-a", value=1).status_code == 403


def test_the_token_leaves_the_address_and_stays_in_a_cookie(reachable: TestClient, job: LabelJob) -> None:
    moved = reachable.get(f"/?token={TOKEN}", follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (303, "/")
    cookie = moved.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert reachable.get("/").status_code == 200
    assert reachable.get("/items/item-a").content == b"a.png"
    labelled = post(reachable, "/api/labels", rater="anna", item="item-a", value=1)
    assert labelled.json()["answered"] == 1
    foreign = {"Origin": "http://evil.example"}
    assert reachable.post("/api/skipped", json={"rater": "anna"}, headers=foreign).status_code == 403
    encrypted = {"Origin": ELSEWHERE.replace("http", "https")}  # through a proxy
    assert reachable.post("/api/skipped", json={"rater": "anna"}, headers=encrypted).status_code == 200


def test_a_token_in_the_address_of_a_request_that_changes_something_is_none(reachable: TestClient, job: LabelJob) -> None:
    answer = reachable.post(f"/api/labels?token={TOKEN}", json={"rater": "anna", "item": "item-a", "value": 1})
    assert answer.status_code == 403
    assert LabelStore(job.labels_file, YES_NO).table().empty


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"rater": "anna", "item": "nothing", "value": 1}, 404),
        ({"rater": "anna", "item": "item-a", "value": 0.5}, 400),
        ({"rater": "../anna", "item": "item-a", "value": 1}, 400),
        ({"rater": "anna", "item": "item-a"}, 422),
        ({"rater": "anna", "item": "item-a", "value": "1"}, 422),
        ({"rater": "anna", "item": "item-a", "value": 1, "more": 2}, 422),
    ],
)
def test_bad_requests_store_nothing(client: TestClient, job: LabelJob, body: dict[str, Any], status: int) -> None:
    assert client.post("/api/labels", json=body).status_code == status
    assert LabelStore(job.labels_file, YES_NO).table().empty


def test_only_items_of_the_job_are_served(client: TestClient, job: LabelJob) -> None:
    assert client.get("/items/item-a").content == b"a.png"
    for path in ("/items/labels.sqlite", "/items/..%2Flabels.sqlite", "/..%2F..%2Fpage.py", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 404
    job.items[0].file.unlink()
    assert client.get(f"/items/{job.items[0].id}").status_code == 404
    assert client.get("/items/item-b").status_code == 200
    job.items[2].file.write_bytes(b"another picture")
    assert client.get("/items/item-b").status_code == 404  # a file that has changed is not judged


def test_pages_may_not_be_framed_or_load_foreign_scripts(client: TestClient) -> None:
    page = client.get("/")
    assert "<script src=" in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy


def test_videos_keep_their_ids_when_others_come(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has nothing to label"):
        videos_to_label(tmp_path)
    (tmp_path / "b.mp4").write_bytes(b"one")
    (first,) = videos_to_label(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"one")
    videos = videos_to_label(tmp_path)
    assert len({item.id for item in videos}) == 2
    assert first in videos
    assert all(item.is_video for item in videos)


def test_a_link_out_of_the_folder_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "b.mp4").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="is refused"):
        videos_to_label(tmp_path / "videos")


def test_videos_are_answered_in_the_papers_buckets(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(b"one")
    items = videos_to_label(tmp_path)
    client = TestClient(
        create_app(LabelJob("videos", "How long?", "upright", items, SHARE, tmp_path / "labels.sqlite")),
        base_url=URL,
        headers={"Origin": URL},
    )
    answers = client.get("/api/job").json()["answers"]
    assert [(each["key"], each["value"]) for each in answers] == [("0", 0), ("1", 25), ("2", 50), ("3", 75), ("4", 100)]
    assert client.get("/api/raters/anna").json()["next"]["shown"] == [{"id": items[0].id, "video": True}]
    assert post(client, "/api/labels", rater="anna", item=items[0].id, value=75).json()["answered"] == 1
    part = client.get(f"/items/{items[0].id}", headers={"Range": "bytes=1-2"})
    assert (part.status_code, part.content) == (206, b"ne")


def test_a_page_whose_labels_cannot_be_written_does_not_start(job: LabelJob) -> None:
    LabelStore(job.labels_file, YES_NO).add("anna", "item-a", 1.0)
    with full_disk(room=100), pytest.raises(UserError, match=r"labels\.sqlite cannot be used .*full or read-only"):
        create_app(job)
    create_app(job)
    assert len(LabelStore(job.labels_file, YES_NO).table()) == 1


@pytest.mark.parametrize("now", ["gone", "a folder", "full disk"])
def test_labels_that_can_no_longer_be_written_are_said_in_words(client: TestClient, job: LabelJob, now: str) -> None:
    """Not made anew: whoever has moved the labels away should know."""
    room = 100 if now == "full disk" else 10**9
    if now != "full disk":
        job.labels_file.unlink()
    if now == "a folder":
        job.labels_file.mkdir()
    with full_disk(room):
        answer = post(client, "/api/labels", rater="anna", item="item-a", value=1)
    assert answer.status_code == 400
    assert "labels.sqlite" in answer.json()["message"]
    assert job.labels_file.is_file() is (now == "full disk")
