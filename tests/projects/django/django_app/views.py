"""Pages."""

from django.http import HttpRequest, HttpResponse

from django_app.models import Visitor


def visit(request: HttpRequest, name: str) -> HttpResponse:
    del request
    visitor, _ = Visitor.objects.get_or_create(name=name)
    visitor.count += 1
    visitor.save()
    return HttpResponse(f"{name}: {visitor.count}")
