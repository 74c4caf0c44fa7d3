"""The client's end: requests as method calls, and a session elsewhere with the face of the loop."""
