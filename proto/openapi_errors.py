"""The part of the OpenAPI document that no proto says: errors as REST callers get them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TYPES = {
    "401": ("UnauthorizedError", "No key, or one that is not known."),
    "403": ("ForbiddenError", "The key does not allow this call, or not in this namespace."),
    "404": ("NotFoundError", "What the call names is not there."),
    "405": ("MethodNotAllowedError", "The path has other methods; `allow` lists them."),
    "409": ("ConflictError", "The present state forbids it, or a name is taken."),
    "413": ("ValidationError", "The body is larger than 16 MiB."),
    "422": ("ValidationError", "The request is wrong; `details.violations` lists every fault."),
    "429": ("TooManyRequestsError", "A limit was met; retry-after says when to try again."),
    "500": ("InternalError", "A fault of the server; the log has `details.error_id` too."),
    "503": ("ServiceUnavailableError", "A store or the server is away; try again."),
}

_RETRY = {
    "retry-after": {
        "description": "Seconds after which another try may pass.",
        "schema": {"type": "integer", "minimum": 1},
    }
}

ERROR_SCHEMA: Json = {
    "type": "object",
    "description": "What went wrong.",
    "required": ["success", "status", "error"],
    "properties": {
        "success": {"type": "boolean", "const": False},
        "status": {"type": "integer", "description": "The HTTP status.", "minimum": 400},
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "details"],
            "properties": {
                "message": {"type": "string", "description": "For people."},
                "type": {
                    "type": "string",
                    "enum": sorted({kind for kind, _ in _TYPES.values()}),
                },
                "code": {
                    "type": "string",
                    "description": "The reason, which never changes; docs/errors.md lists them.",
                },
                "details": {
                    "type": "object",
                    "description": "Facts by their names.",
                    "properties": {
                        "violations": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["field", "description"],
                                "properties": {
                                    "field": {"type": "string"},
                                    "description": {"type": "string"},
                                },
                            },
                        },
                        "retry_after_s": {"type": "number", "minimum": 0},
                    },
                    "additionalProperties": True,
                },
            },
        },
    },
}

ERROR_RESPONSES: Json = {
    f"Error{status}": {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        **({"headers": _RETRY} if status in ("429", "503") else {}),
    }
    for status, (_, description) in _TYPES.items()
}


def error_responses(*, has_body: bool) -> Json:
    """Give the failed answers of a call, by their status."""
    left_out = {"405"} if has_body else {"405", "413"}
    return {
        status: {"$ref": f"#/components/responses/Error{status}"}
        for status in _TYPES
        if status not in left_out
    }
