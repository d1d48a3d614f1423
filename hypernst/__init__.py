"""The installed program; a wheel holds pipeline/, models/, stages/ and their data in here."""
