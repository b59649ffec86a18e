"""The Typer commands: parse, build settings, call one function, print."""
