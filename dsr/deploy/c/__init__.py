"""Networks as plain C."""

from dsr.deploy.c.export import Exported, export_c

__all__ = ["Exported", "export_c"]
