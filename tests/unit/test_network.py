"""What an environment says about the network: whose token a host gets, in which order, and through which proxy."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from registree.errors import FormatError, InvalidInput, StoreError
from registree.network import Network, Origin, host_of, token_name
from registree.store.http import HttpStore

URL = "https://git.example.org/group/data.git"
SECRET = "hunter2-and-more"


def network(**environment: str) -> Network:
    return Network.from_environment({"HOME": "/nonexistent", **environment})


def with_netrc(folder: Path, text: str, **environment: str) -> Network:
    (folder / ".netrc").write_text(text)
    return Network.from_environment({"HOME": str(folder), **environment})


def secret(found: Network, url: str = URL) -> str:
    credentials = found.credentials(url)
    return credentials.secret if credentials is not None else ""


# --- tokens -----------------------------------------------------------------------------------------------------


def test_token_is_for_the_host_that_it_is_named_for() -> None:
    found = network(REG_TOKEN_GIT_EXAMPLE_ORG=SECRET).token(URL)
    assert found is not None
    assert (found.user, found.secret, found.origin) == ("", SECRET, Origin.VARIABLE)
    assert found.source == "REG_TOKEN_GIT_EXAMPLE_ORG"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/data",
        "https://git.example.org.evil.net/data",
        "https://evil.git.example.org/data",
        "https://git.example.com/data",
        "https://git-example-org/data",
        "https://git-example.org/data",
        "https://git.example.org@evil.net/data",
        "https://evil.net/git.example.org",
        "https://evil.net/?host=git.example.org",
        "https://evil.net#git.example.org",
        "git.example.org/data",
        "",
    ],
)
def test_token_is_for_no_other_host(url: str) -> None:
    assert network(REG_TOKEN_GIT_EXAMPLE_ORG=SECRET).credentials(url) is None


def test_dash_and_dot_are_two_hosts() -> None:
    dashed, dotted = "https://git.my-corp.org/x", "https://git.my.corp.org/x"
    assert token_name(host_of(dashed)) != token_name(host_of(dotted))
    assert network(REG_TOKEN_GIT_MY__CORP_ORG=SECRET).token(dotted) is None
    assert network(REG_TOKEN_GIT_MY_CORP_ORG=SECRET).token(dashed) is None
    assert secret(network(REG_TOKEN_GIT_MY__CORP_ORG=SECRET), dashed) == SECRET
    assert secret(network(REG_TOKEN_GIT_MY_CORP_ORG=SECRET), dotted) == SECRET


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a-b.org", "a.b.org"),
        ("a--b.org", "a-b.org"),
        ("a_b.org", "a.b.org"),
        ("a__b.org", "a-b.org"),
        ("a.8443", "a:8443"),
        ("bücher.org", "b.cher.org"),
    ],
)
def test_no_two_hosts_share_a_variable(one: str, other: str) -> None:
    assert token_name(one) != token_name(other)


def test_upper_and_lower_case_are_one_host() -> None:
    assert secret(network(REG_TOKEN_GIT_EXAMPLE_ORG=SECRET), "https://GIT.Example.ORG/data") == SECRET


def test_port_goes_before_the_host_alone() -> None:
    both = network(REG_TOKEN_GIT_EXAMPLE_ORG="of-the-host", REG_TOKEN_GIT_EXAMPLE_ORG___8443="of-the-port")
    assert secret(both, "https://git.example.org:8443/x") == "of-the-port"
    assert secret(both, "https://git.example.org:9443/x") == "of-the-host"
    assert secret(both) == "of-the-host"


def test_token_of_a_port_is_not_for_another_one() -> None:
    only = network(REG_TOKEN_GIT_EXAMPLE_ORG___8443=SECRET)
    assert only.token("https://git.example.org/x") is None
    assert only.token("https://git.example.org:9443/x") is None


def test_user_may_stand_before_the_token() -> None:
    found = network(REG_TOKEN_GIT_EXAMPLE_ORG=f"me:{SECRET}").token(URL)
    assert found is not None
    assert (found.user, found.secret) == ("me", SECRET)


@pytest.mark.parametrize("text", ["reader:pass:word", "reader:ends-with:"])
def test_password_may_hold_a_colon(text: str) -> None:
    found = network(REG_TOKEN_GIT_EXAMPLE_ORG=text).token(URL)
    assert found is not None
    assert (found.user, found.secret) == tuple(text.split(":", 1))


def test_empty_token_is_none() -> None:
    assert network(REG_TOKEN_GIT_EXAMPLE_ORG="").token(URL) is None


# --- the CI system's own ----------------------------------------------------------------------------------------

CI = [
    ("GITHUB_SERVER_URL", "GITHUB_TOKEN", "x-access-token"),
    ("CI_SERVER_URL", "CI_JOB_TOKEN", "gitlab-ci-token"),
    ("SYSTEM_COLLECTIONURI", "SYSTEM_ACCESSTOKEN", "build"),
]


@pytest.mark.parametrize(("server", "name", "user"), CI)
def test_ci_token_is_for_its_own_host(server: str, name: str, user: str) -> None:
    found = network(**{server: "https://git.example.org/", name: SECRET}).ci_token(URL)
    assert found is not None
    assert (found.user, found.secret, found.origin, found.source) == (user, SECRET, Origin.CI, name)


@pytest.mark.parametrize(("server", "name", "user"), CI)
def test_ci_token_is_for_no_other_host(server: str, name: str, user: str) -> None:
    assert network(**{server: "https://ci.example.org", name: SECRET}).credentials(URL) is None
    assert network(**{server: "https://git.example.org:8443", name: SECRET}).credentials(URL) is None
    assert network(**{name: SECRET}).credentials(URL) is None


@pytest.mark.parametrize("url", ["", "data", "/srv/data", "./data"])
def test_ci_token_without_a_server_is_not_for_what_has_no_host(url: str) -> None:
    assert network(GITHUB_TOKEN=SECRET).ci_token(url) is None


# --- netrc ------------------------------------------------------------------------------------------------------


def test_netrc_is_read_from_home(tmp_path: Path) -> None:
    found = with_netrc(tmp_path, f"machine git.example.org login me password {SECRET}\n").netrc(URL)
    assert found is not None
    assert (found.user, found.secret, found.origin) == ("me", SECRET, Origin.NETRC)
    assert found.source == str(tmp_path / ".netrc")


def test_netrc_is_where_the_variable_says(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(f"machine git.example.org login me password {SECRET}\n")
    text = "machine git.example.org login me password in-home\n"
    assert secret(with_netrc(tmp_path, text, NETRC=str(tmp_path / "elsewhere"))) == SECRET


def test_netrc_knows_hosts_and_no_ports(tmp_path: Path) -> None:
    found = with_netrc(tmp_path, f"machine git.example.org login me password {SECRET}\n")
    assert secret(found, "https://git.example.org:8443/x") == SECRET
    assert secret(found, "https://GIT.EXAMPLE.ORG/x") == SECRET


@pytest.mark.parametrize(
    "text",
    [
        f"machine example.org login me password {SECRET}\n",
        f"machine git-example.org login me password {SECRET}\n",
        f"machine evil.net login me password {SECRET}\n",
        f"default login me password {SECRET}\n",
        "machine git.example.org login me\n",
        "",
    ],
)
def test_netrc_of_another_host_is_not_taken(tmp_path: Path, text: str) -> None:
    assert with_netrc(tmp_path, text).credentials(URL) is None


def test_netrc_that_is_not_there_is_none() -> None:
    assert network().netrc(URL) is None
    assert network(NETRC="/nonexistent/netrc").netrc(URL) is None


@pytest.mark.parametrize(
    "text",
    [
        f"machine git.example.org login me password {SECRET} nonsense here\n",
        f"nonsense machine git.example.org login me password {SECRET}\n",
    ],
)
def test_malformed_netrc_names_its_place_and_line_and_no_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(FormatError) as caught:
        with_netrc(tmp_path, f"machine a.org login me password b\n{text}").netrc(URL)
    assert f"{tmp_path / '.netrc'} is malformed at line 2" in caught.value.message
    assert SECRET not in caught.value.message + caught.value.hint


def test_malformed_netrc_shows_no_secret_where_a_keyword_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        with_netrc(tmp_path, f"machine git.example.org login me {SECRET}\n").netrc(URL)
    assert SECRET not in caught.value.message + caught.value.hint


def test_netrc_that_is_no_text_is_malformed(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_bytes(b"machine \xff\xfe\n")
    with pytest.raises(FormatError):
        Network.from_environment({"HOME": str(tmp_path)}).netrc(URL)


# --- the order --------------------------------------------------------------------------------------------------


def test_named_token_goes_before_the_ci_system_and_that_before_netrc(tmp_path: Path) -> None:
    netrc = "machine git.example.org login me password of-netrc\n"
    ci = {"GITHUB_SERVER_URL": "https://git.example.org", "GITHUB_TOKEN": "of-ci"}
    assert secret(with_netrc(tmp_path, netrc, **ci, REG_TOKEN_GIT_EXAMPLE_ORG="named")) == "named"
    assert secret(with_netrc(tmp_path, netrc, **ci)) == "of-ci"
    assert secret(with_netrc(tmp_path, netrc)) == "of-netrc"


def test_secret_is_in_no_repr(tmp_path: Path) -> None:
    environment = {
        "REG_TOKEN_GIT_EXAMPLE_ORG": f"me:{SECRET}",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "https_proxy": f"http://me:{SECRET}@proxy:3128",
    }
    found = with_netrc(tmp_path, f"machine git.example.org login me password {SECRET}\n", **environment)
    for made in (found, found.token(URL), found.netrc(URL), found.credentials(URL)):
        assert SECRET not in repr(made)
        assert SECRET not in str(made)


# --- proxies ----------------------------------------------------------------------------------------------------

PROXY = "http://proxy.example.org:3128"


@pytest.mark.parametrize(
    ("name", "url", "expected"),
    [
        ("https_proxy", "https://a.org/x", PROXY),
        ("HTTPS_PROXY", "https://a.org/x", PROXY),
        ("http_proxy", "http://a.org/x", PROXY),
        ("HTTP_PROXY", "http://a.org/x", PROXY),
        ("all_proxy", "https://a.org/x", PROXY),
        ("ALL_PROXY", "http://a.org/x", PROXY),
        ("https_proxy", "http://a.org/x", None),
        ("http_proxy", "https://a.org/x", None),
    ],
)
def test_proxy_is_the_one_of_the_scheme(name: str, url: str, expected: str | None) -> None:
    assert network(**{name: PROXY}).proxy(url) == expected


def test_proxy_of_the_scheme_goes_before_that_of_all() -> None:
    assert network(https_proxy=PROXY, all_proxy="http://other:1").proxy("https://a.org") == PROXY


@pytest.mark.parametrize(
    "order",
    [
        ("https_proxy", "HTTPS_PROXY"),
        ("HTTPS_PROXY", "https_proxy"),
    ],
)
def test_lower_case_goes_before_upper_case(order: tuple[str, str]) -> None:
    values = {"https_proxy": "http://lower:1", "HTTPS_PROXY": "http://upper:1"}
    assert network(**{name: values[name] for name in order}).proxy("https://a.org") == "http://lower:1"


def test_empty_lower_case_switches_the_upper_case_off() -> None:
    assert network(HTTPS_PROXY=PROXY, https_proxy="").proxy("https://a.org") is None


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize(
    ("text", "url", "bypassed"),
    [
        ("a.org", "https://a.org/x", True),
        ("a.org", "https://b.a.org/x", True),
        (".a.org", "https://b.a.org/x", True),
        ("a.org", "https://ba.org/x", False),
        ("a.org", "https://a.org.evil.net/x", False),
        ("a.org:8443", "https://a.org:8443/x", True),
        ("a.org:8443", "https://a.org/x", False),
        ("a.org", "https://a.org:8443/x", True),
        ("b.org, a.org", "https://a.org/x", True),
        ("A.ORG", "https://a.org/x", True),
        ("*", "https://a.org/x", True),
        ("a.org", "https://me@a.org/x", True),
        ("127.0.0.1", "http://127.0.0.1:9000/x", True),
        ("", "https://a.org/x", False),
    ],
)
def test_no_proxy_keeps_hosts_from_it(name: str, text: str, url: str, bypassed: bool) -> None:
    found = network(https_proxy=PROXY, http_proxy=PROXY, **{name: text})
    assert found.proxy(url) == (None if bypassed else PROXY)


def test_header_of_a_cgi_request_is_no_proxy() -> None:
    assert network(HTTP_PROXY="http://evil:1", REQUEST_METHOD="GET").proxy("http://a.org") is None
    assert network(http_proxy=PROXY, REQUEST_METHOD="GET").proxy("http://a.org") == PROXY


# --- the rest ---------------------------------------------------------------------------------------------------


def test_authorities_come_from_the_first_variable_that_names_some() -> None:
    names = ["REG_CA_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
    for start in range(len(names)):
        assert network(**{name: f"/{name}" for name in names[start:]}).ca_file == f"/{names[start]}"
    assert network().ca_file == ""


def test_profile_is_what_the_environment_says() -> None:
    assert network(AWS_PROFILE="work").aws_profile == "work"
    assert network().aws_profile == "default"
    assert network(AWS_PROFILE="").aws_profile == "default"


def test_environment_is_kept_as_it_was() -> None:
    environment = {"https_proxy": PROXY}
    found = Network.from_environment(environment)
    environment.clear()
    assert found.proxy("https://a.org") == PROXY


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
def test_line_end_of_a_file_is_not_the_token_s(end: str) -> None:
    found = Network({"REG_TOKEN_GIT_EXAMPLE_ORG": f"s3cr3t{end}"}).token("https://git.example.org/registry")
    assert found is not None
    assert found.secret == "s3cr3t"


def test_token_that_no_header_can_hold_is_refused_and_not_shown() -> None:
    with pytest.raises(FormatError) as caught:
        network(REG_TOKEN_GIT_EXAMPLE_ORG="s3c\r\nr3t").token("https://git.example.org/registry")
    assert "REG_TOKEN_GIT_EXAMPLE_ORG" in caught.value.message
    assert "r3t" not in caught.value.message
    with pytest.raises(InvalidInput) as refused:
        HttpStore("https://git.example.org", Network({"REG_TOKEN_GIT_EXAMPLE_ORG": "s3cr\u20act"}))
    assert "s3cr" not in refused.value.message


def test_server_does_not_say_how_long_is_waited_for_it() -> None:
    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.send_header("Retry-After", "600")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(StoreError):
            HttpStore(f"http://127.0.0.1:{server.server_port}", Network({})).read("store.yaml")
        assert time.monotonic() - began < 60
        server.shutdown()
