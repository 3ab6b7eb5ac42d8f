"""A model's API that plays from a script, so that a real coding agent can be shown without a model.

Speaks as much of OpenAI's chat completions as an agent needs: the nth answer is the script's nth command, as a call of
the agent's own shell tool; after the last one it says that it is done. Prints its port, and ends with its standard input.

    model.py SCRIPT     a shell script; each paragraph is one command
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MOST_BYTES = 8 << 20  # an agent sends its whole conversation each time


class Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    commands: list[str] = []

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > MOST_BYTES:
            return self.send_error(413)
        request = json.loads(self.rfile.read(length))
        message = self.answer(request)
        if request.get("stream"):
            self.stream(message)
        else:
            reason = "tool_calls" if "tool_calls" in message else "stop"
            self.whole({"choices": [{"index": 0, "message": message, "finish_reason": reason}]})

    def answer(self, request):
        if not request.get("tools"):  # it asks for a title of the conversation
            return {"role": "assistant", "content": "AWS, by hand"}
        done = sum(message["role"] == "tool" for message in request["messages"])
        if done >= len(self.commands):
            return {"role": "assistant", "content": f"Done: {done} commands were run."}
        arguments = {"command": self.commands[done], "description": self.commands[done].splitlines()[0][:60]}
        call = {
            "index": 0,
            "id": f"call_{done}",
            "type": "function",
            "function": {"name": "bash", "arguments": json.dumps(arguments)},
        }
        return {"role": "assistant", "content": "", "tool_calls": [call]}

    def envelope(self, more):
        return {"id": "scripted", "created": 0, "model": "scripted", **more}

    def whole(self, more):
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = json.dumps(self.envelope({"object": "chat.completion", "usage": usage, **more})).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, message):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        reason = "tool_calls" if "tool_calls" in message else "stop"
        for delta, finish in ((message, None), ({}, reason)):
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            chunk = self.envelope({"object": "chat.completion.chunk", "choices": [choice]})
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, *_):
        pass


def paragraphs(path):
    with open(path, encoding="utf-8") as script:
        lines = (line for line in script if not line.startswith("#"))
        return [paragraph.strip() for paragraph in "".join(lines).split("\n\n") if paragraph.strip()]


def main():
    Model.commands = paragraphs(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


main()
