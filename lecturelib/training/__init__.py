"""How the shipped weights were made; every command here can be stopped and resumed."""
