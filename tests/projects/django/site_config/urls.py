"""Addresses of the site."""

from django.urls import path
from django_app.views import visit

urlpatterns = [path("<str:name>", visit)]
