"""The description of the service for programs: OpenAPI 3.1."""

from typing import Any

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "id"],
            "properties": {
                "code": {"type": "string", "description": "One word, for programs."},
                "message": {"type": "string", "description": "One sentence, for people."},
                "id": {"type": "string", "description": "Names this answer in the log of the service."},
            },
        }
    },
}
_PREDICTION = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "description": "Last part of the file name that was sent; may be empty."},
        "label": {"type": "string", "description": "The most probable class."},
        "probability": {"type": "number", "minimum": 0, "maximum": 1},
        "probabilities": {
            "type": "object",
            "description": "Of every class, calibrated, in the order of the model; of the topk most probable if given.",
            "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
        },
        "unsure": {"type": "boolean", "description": "Below the threshold of the class, where the model has one."},
        "error": {
            "type": "object",
            "description": "Instead of the others: why the photo cannot be read.",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
_PREDICTIONS = {
    "type": "object",
    "required": ["model", "predictions"],
    "properties": {
        "model": {"type": "string", "description": "Names the model; the same in every replica of it."},
        "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
    },
}
_MODEL = {
    "type": "object",
    "required": ["model", "classes", "accuracy", "accuracy_ci95", "limits"],
    "properties": {
        "model": {"type": "string"},
        "classes": {"type": "array", "items": {"type": "string"}},
        "accuracy": {"type": "number", "description": "On the photos held out for the test, 0 to 1."},
        "accuracy_ci95": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        "limits": {
            "type": "object",
            "properties": {
                "bytes": {"type": "integer", "description": "Of a request."},
                "photos": {"type": "integer", "description": "Of a request."},
            },
        },
    },
}
_STATUS = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
_REFUSALS = {
    "400": "The request, its form or topk is malformed.",
    "401": "A token is wanted.",
    "403": "The host or the origin is not accepted.",
    "408": "The request did not arrive in time.",
    "413": "Too many bytes, or too many photos.",
    "415": "Another type of content.",
    "503": "Not ready, or too much to do: come back after the seconds in Retry-After.",
}
_EVERYWHERE = ("400", "401", "403", "408", "413", "503")


def describe(*, token: bool) -> dict[str, Any]:
    """Return the document.

    Args:
        token: the service wants one.
    """
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "headstart",
            "version": "1",
            "description": "Names the class of photos, with calibrated probabilities.",
        },
        "paths": {
            "/v1/predict": {"post": _predict()},
            "/v1/model": {"get": _get("The model: its classes, how good it is, what a request may hold.", "Model")},
            "/healthz": {"get": {**_get("The process lives.", "Status"), "security": []}},
            "/readyz": {"get": {**_get("Predictions can be made.", "Status"), "security": []}},
            "/metrics": {"get": _metrics()},
            "/openapi.json": {"get": _answers("This document.", {"application/json": {"schema": {"type": "object"}}})},
        },
        "components": {
            "schemas": {
                "Prediction": _PREDICTION,
                "Predictions": _PREDICTIONS,
                "Model": _MODEL,
                "Status": _STATUS,
                "Error": _ERROR,
            }
        },
    }
    if token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _ref(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _refusals(codes: tuple[str, ...]) -> dict[str, Any]:
    return {code: {"description": _REFUSALS[code], "content": _ref("Error")} for code in codes}


def _answers(told: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"summary": told, "responses": {"200": {"description": told, "content": content}, **_refusals(_EVERYWHERE)}}


def _get(told: str, name: str) -> dict[str, Any]:
    return _answers(told, _ref(name))


def _metrics() -> dict[str, Any]:
    return _answers("Counts and times, for Prometheus.", {"text/plain": {"schema": {"type": "string"}}})


def _predict() -> dict[str, Any]:
    photo = {"schema": {"type": "string", "format": "binary"}}
    form = {
        "schema": {
            "type": "object",
            "required": ["photo"],
            "properties": {"photo": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
        }
    }
    told = "The classes of one photo (the body) or of several (the files of a form, under any name)."
    answers = {
        "200": {
            "description": "In the order sent; a photo that cannot be read has `error`.",
            "content": _ref("Predictions"),
        },
        "422": {"description": "None of the photos can be read.", "content": _ref("Predictions")},
        **_refusals((*_EVERYWHERE, "415")),
    }
    return {
        "summary": told,
        "operationId": "predict",
        "parameters": [
            {
                "name": "topk",
                "in": "query",
                "description": "How many classes to name, the most probable first; all without it.",
                "schema": {"type": "integer", "minimum": 1, "maximum": 99999},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": form, "image/jpeg": photo, "image/png": photo, "image/webp": photo},
        },
        "responses": answers,
    }
