"""Post a file to a webhook trigger, signed as Standard Webhooks.

WEBHOOK_SECRET=whsec_... python post.py URL FILE
"""

import base64
import json
import os
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import httpx
from standardwebhooks.webhooks import Webhook


def main(url: str, file: Path) -> None:
    """Print what the service answers."""
    body = json.dumps({"base64": base64.b64encode(file.read_bytes()).decode(), "name": file.name})
    message_id, now = f"msg_{uuid.uuid4().hex}", datetime.now(UTC)  # the same ID, should it be sent again
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(os.environ["WEBHOOK_SECRET"]).sign(message_id, now, body),
    }
    answer = httpx.post(url, content=body, headers=headers, timeout=30.0)
    print(answer.status_code, answer.text)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
