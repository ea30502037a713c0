import app
import gentle

asgi = gentle.gentle(app.asgi)
