"""Links of kind dummy, which drop what is sent through them; they have no settings."""

KIND = "dummy"
