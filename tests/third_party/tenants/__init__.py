"""A project's tenants, as django-tenants asks for them."""
