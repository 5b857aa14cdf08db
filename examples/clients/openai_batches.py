"""A file of requests, run beside live traffic: `python examples/clients/openai_batches.py [base URL]`."""

from __future__ import annotations

import json
import sys
import time

from openai import OpenAI


def request(country: str) -> str:
    """One line of the file."""
    question = f"What is the capital of {country}?"
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0}
    line = {"custom_id": country, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line)


def main(base_url: str) -> None:
    """Prints how the batch ended, and its answers."""
    client = OpenAI(base_url=base_url, api_key="none")
    lines = "\n".join(request(country) for country in ("France", "Italy", "Japan"))
    file = client.files.create(file=("capitals.jsonl", lines.encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    print(batch.status, batch.request_counts)
    assert batch.output_file_id is not None
    for line in client.files.content(batch.output_file_id).text.splitlines():
        answer = json.loads(line)
        message = answer["response"]["body"]["choices"][0]["message"]
        print(answer["custom_id"], "->", message["content"])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
