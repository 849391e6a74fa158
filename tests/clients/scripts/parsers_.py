"""What Python's parsers make of forms; like parsers.mjs."""

import asyncio
import base64
import io
import json
import sys
from urllib.parse import parse_qsl

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from starlette.requests import Request
from werkzeug.wrappers import Request as WerkzeugRequest

settings.configure(ALLOWED_HOSTS=["*"])
django.setup()


def environ(kind, body):
    return {
        "REQUEST_METHOD": "POST",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "PATH_INFO": "/",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(body)),
    }


def of_django(kind, body):
    request = WSGIRequest(environ(kind, body))
    fields = [(name, value) for name, values in request.POST.lists() for value in values]
    files = [(name, f) for name, many in request.FILES.lists() for f in many]
    return [*fields, *((name, {"size": file.size}) for name, file in files)]


def of_werkzeug(kind, body):
    request = WerkzeugRequest(environ(kind, body))
    fields = list(request.form.items(multi=True))
    files = request.files.items(multi=True)
    return [*fields, *((name, {"size": len(file.read())}) for name, file in files)]


def of_starlette(kind, body):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def read():
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "query_string": b"",
            "headers": [(b"content-type", kind.encode("latin-1"))],
        }
        form = await Request(scope, receive).form()
        return [
            (name, value if isinstance(value, str) else {"size": value.size})
            for name, value in form.multi_items()
        ]

    return asyncio.run(read())


def of_urllib(kind, body):
    return parse_qsl(body.decode(), keep_blank_values=True)


PARSERS = {"django": of_django, "werkzeug": of_werkzeug, "starlette": of_starlette}


def found(kind, body):
    parsers = PARSERS if kind.startswith("multipart") else {**PARSERS, "urllib": of_urllib}
    entries = {}
    for name, parse in parsers.items():
        try:
            entries[name] = parse(kind, body)
        except Exception:
            entries[name] = None
    return entries


forms = json.load(sys.stdin)
print(json.dumps([found(f["type"], base64.b64decode(f["body"])) for f in forms]))
