"""Language models as players: worlds as tools of the Model Context Protocol, over stdio and HTTP."""
