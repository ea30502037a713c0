"""For ASGI: after SIGUSR1 each answer says `Connection: close`, so that clients with a kept connection come no more on it."""
import signal

closing = False


def close(*_):
    global closing
    closing = True


def gentle(app):
    signal.signal(signal.SIGUSR1, close)

    async def wrapped(scope, receive, send):
        async def told(message):
            if closing and message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, told)

    return wrapped
