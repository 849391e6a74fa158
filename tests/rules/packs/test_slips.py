"""Calls that look milder than they are: whose class a header, a second name for the action, or an
unknown name must not lower."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.packs import BOT, class_of, host_of, matched, request_of, rulebook

TARGET = {"X-Amz-Target": "DynamoDB_20120810.PutItem"}
TERMINATE = {"Action": "TerminateInstances"}
HIGH: list[tuple[str, dict[str, Any]]] = [
    ("kubernetes", {"method": "GET", "path": "/version", "headers": {"Impersonate-User": "root"}}),
    ("kubernetes", {"method": "GET", "path": "/api", "headers": {"impersonate-uid": "0"}}),
    (
        "kubernetes",
        {
            "method": "GET",
            "path": "/apis/subresources.kubevirt.io/v1/namespaces/n/virtualmachines/v/vnc",
        },
    ),
    ("gitlab", {"method": "GET", "path": "/api/v4/user?sudo=root"}),
    ("gitlab", {"method": "GET", "path": "/api/v4/projects/1", "headers": {"SUDO": "1"}}),
    ("gitlab", {"method": "POST", "path": "/api/v4/projects/1/export"}),
    ("aws", {"method": "POST", "path": "/", "headers": TARGET, "form": TERMINATE}),
    ("aws", {"method": "POST", "path": "/?Action=StopInstances", "form": TERMINATE}),
    ("aws", {"method": "POST", "path": "/?Action=DescribeInstances", "form": TERMINATE}),
    (
        "aws",
        {"method": "POST", "path": "/?Action=TerminateInstances", "headers": TARGET, "json": {}},
    ),
    ("aws", {"method": "GET", "path": "/2015-03-31/x?Action=TerminateInstances"}),
    ("aws", {"method": "GET", "path": "/?Action=TestFailover"}),
    ("aws-s3", {"method": "PUT", "path": "/a", "headers": {"X-Amz-Acl": "public-read"}}),
    ("aws-s3", {"method": "PUT", "path": "/a", "headers": {"x-amz-grant-read": "uri=all"}}),
    (
        "google-calendar",
        {"method": "PATCH", "path": "/calendar/v3/calendars/c/events/e?sendUpdates=externalOnly"},
    ),
    ("slack", {"method": "POST", "path": "/api/admin.brandNew.method"}),
    ("slack", {"method": "GET", "path": "/api/users.admin.setInactive?user=U1"}),
    ("stripe", {"method": "POST", "path": "/v1/terminal/readers/r/refund_payment"}),
    ("stripe", {"method": "POST", "path": "/v1/customers/c/subscriptions"}),
    ("stripe", {"method": "POST", "path": "/v1/application_fees/f/refund"}),
    (
        "github",
        {"method": "PATCH", "path": "/repos/a/b/git/refs/heads/main", "json": {"force": True}},
    ),
    (
        "github",
        {"method": "POST", "path": "/repos/a/b/pulls/1/reviews", "json": {"event": "APPROVE"}},
    ),
    (
        "github",
        {"method": "POST", "path": "/repos/a/b/pulls/1/reviews", "json": {"event": "approve"}},
    ),
    (
        "github",
        {
            "method": "POST",
            "path": "/repos/a/b/pulls/1/reviews",
            "headers": {"Content-Type": "application/json"},
            "body": '{"event": "COMMENT", "event": "APPROVE"}',
        },
    ),
    (
        "github-graphql",
        {
            "method": "POST",
            "path": "/graphql",
            "json": {"query": "mutation { addStar: submitPullRequestReview(input: {}) { x } }"},
        },
    ),
]


@pytest.mark.parametrize(("name", "spec"), HIGH)
def test_it_is_high_whatever_it_looks_like(name: str, spec: dict[str, Any]) -> None:
    book = rulebook(name)
    found = matched(book, request_of(spec, host_of(book.policy.rules[0].matches[0])))
    assert "high" in {class_of(rule) for rule in found}


@pytest.mark.parametrize(
    "path",
    ["/api/v3/repos/a/b/pulls/1/merge", "/api/graphql", "/graphql/"],
)
def test_servers_with_other_paths_are_not_taken_for_github(path: str) -> None:
    """GitHub Enterprise Server has its calls below /api/v3: there no rule of the pack fits them."""
    request = request_of({"method": "PUT", "path": path}, "api.github.com")
    assert rulebook("github").decide(BOT, request).effect == "deny"


@pytest.mark.parametrize(
    ("name", "spec", "level"),
    [
        (
            "github",
            {"method": "POST", "path": "/repos/a/b/pulls/1/reviews", "json": {"event": "COMMENT"}},
            "medium",
        ),
        (
            "aws",
            {"method": "POST", "path": "/", "headers": TARGET, "json": {"TableName": "t"}},
            "medium",
        ),
        ("aws-s3", {"method": "PUT", "path": "/a"}, "medium"),
        ("kubernetes", {"method": "GET", "path": "/version"}, "low"),
        ("gitlab", {"method": "GET", "path": "/api/v4/user"}, "low"),
    ],
)
def test_what_is_mild_stays_so(name: str, spec: dict[str, Any], level: str) -> None:
    book = rulebook(name)
    found = matched(book, request_of(spec, host_of(book.policy.rules[0].matches[0])))
    assert {class_of(rule) for rule in found} == {level}
