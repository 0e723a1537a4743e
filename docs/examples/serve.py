"""A model as a service: `python serve.py MODEL`, then `curl --data-binary @photo.jpg http://127.0.0.1:8000/ -o mask.png`.

Standard library and zoo alone. One request is predicted at a time, on the accelerator where there is one. What ends TLS and
asks who is asking belongs before it.
"""

import argparse
import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

import zoo

MOST_BYTES = 2**25


def make_server(predictor, port):
    """Return a server whose POST / takes an image and gives its mask, and whose GET / tells what the mask's values mean."""
    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            facts = {"classes": predictor.classes, "colors": predictor.colors, "pairing": str(predictor.pairing)}
            self.answer(200, "application/json", json.dumps(facts).encode())

        def do_POST(self):
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 < length <= MOST_BYTES:
                return self.refuse(413, f"an image of 1 to {MOST_BYTES:,} bytes is taken; found {length:,}")
            try:
                image = Image.open(io.BytesIO(self.rfile.read(length)))
                image.load()
                with turn:
                    prediction = predictor(image)
            except (zoo.ZooError, OSError, ValueError, Image.DecompressionBombError) as problem:
                return self.refuse(400, str(problem))
            mask = io.BytesIO()
            prediction.picture().save(mask, "PNG")
            return self.answer(200, "image/png", mask.getvalue())

        def refuse(self, status, told):
            self.answer(status, "application/json", json.dumps({"error": told}).encode())

        def answer(self, status, kind, content):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder that zoo.save wrote, or hf-hub:OWNER/NAME")
    parser.add_argument("--port", type=int, default=8000)
    asked = parser.parse_args()
    server = make_server(zoo.Predictor(asked.model), asked.port)
    sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}/\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
