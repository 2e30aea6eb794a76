"""From an event to a delivered result, over HTTP at both ends, through outages and drains."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from standardwebhooks import Webhook

from tests.servers.service import serving, wait_for
from tidegate.resilience.faults import FaultyServer

SAMPLE = Path(__file__).parent / "samples" / "harbour-report.md"
SECRET = "whsec_" + base64.b64encode(b"the secret of the receiver").decode()


def test_a_result_of_the_interface_is_delivered_to_a_webhook_and_to_a_folder(tmp_path: Path) -> None:
    with FaultyServer() as receiver:
        sinks = [
            {"kind": "webhook", "url": receiver.url, "secret": SECRET},
            {"kind": "file", "path": str(tmp_path / "out")},
        ]
        (tmp_path / "out").mkdir()
        with serving(sink=sinks) as served:
            answer = served.client.post("/v1/threads", files={"file": ("../harbour.md", SAMPLE.read_bytes())})
            thread_id = answer.json()["thread_id"]
            served.until(thread_id, "complete")
            wait_for(lambda: receiver.requests or None)
            wait_for(lambda: True if list((tmp_path / "out").glob("*.summary.md")) else None)
    [request] = receiver.requests
    Webhook(SECRET).verify(request.body, dict(request.headers), json_parse=False)
    event = json.loads(request.body)
    assert (event["subject"], event["data"]["status"]) == (thread_id, "complete")
    assert all(each.parent == tmp_path / "out" for each in tmp_path.rglob("*.summary.*"))


def test_a_receiver_that_is_away_gets_it_later_under_the_same_id() -> None:
    with FaultyServer([503, 503]) as receiver:
        sink = {"kind": "webhook", "url": receiver.url, "secret": SECRET}
        with serving(sink=[sink], serve={"retry_initial": 0.1}) as served:
            served.until(served.start("Ada Lovelace lived in London."), "complete")
            wait_for(lambda: True if len(receiver.requests) >= 3 else None)
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1


def test_a_degraded_thread_that_is_asked_to_go_on_waits_for_its_circuit() -> None:
    with FaultyServer(lambda _: 503) as away:
        enrichment = {
            "adapter": "http",
            "url": f"{away.url}/{{text}}",
            "method": "GET",
            "failure_threshold": 1,
            "reset_timeout": 3600.0,
        }
        with serving(enrichment=enrichment) as served:
            thread_id = served.start("Ada Lovelace lived in London.")
            found = served.until(thread_id, "degraded")
            assert found["missing"]
            assert found["retry_in"] > 0
            assert served.client.get("/v1/circuits").json()["circuits"][0]["state"] == "open"
            requests = len(away.requests)
            assert served.client.post(f"/v1/threads/{thread_id}/resume").status_code == 202
            assert served.until(thread_id, "degraded")["revision"] == 1
            assert len(away.requests) == requests
