"""Serve a model over HTTP: `python serve.py MODEL`, then `curl --data-binary @photo.jpg http://127.0.0.1:8000/ -o mask.png`.

The service needs only zoo and the standard library. It predicts one request at a time, on the accelerator if there is one.
It has no TLS and no authentication, so run it behind a proxy that provides both.
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
    """Return a server. `POST /` takes an image and returns its mask; `GET /` returns the classes and colors of the mask."""
    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            facts = {"classes": predictor.classes, "colors": predictor.colors, "pairing": str(predictor.pairing)}
            self.answer(200, "application/json", json.dumps(facts).encode())

        def do_POST(self):
            length = int(self.headers.get("Content-Length") or 0)
            if not 0 < length <= MOST_BYTES:
                return self.refuse(413, f"The image must have 1 to {MOST_BYTES:,} bytes; found {length:,}.")
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
