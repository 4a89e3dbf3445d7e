"""A page that greets, and `flask greet NAME`, which asks for the page without a server."""

import click
from flask import Flask, render_template

app = Flask(__name__)


@app.get("/<name>")
def hello(name: str) -> str:
    return render_template("hello.html", name=name)


@app.cli.command("greet")
@click.argument("name")
def greet(name: str) -> None:
    click.echo(app.test_client().get(f"/{name}").text)
