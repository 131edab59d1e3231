"""Who may use the label page: this machine, or whoever has the token."""

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.labelling.access import Access


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_this_machine_alone_there_is_no_token(host: str) -> None:
    access = Access.of(host, {})
    assert access.token is None
    assert access.admits(None)
    assert "token" not in access.address(8000)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "workstation"])
def test_where_others_reach_it_a_new_token_is_in_the_printed_address(host: str) -> None:
    access, other = Access.of(host, {}), Access.of(host, {})
    assert access.token is not None
    assert len(access.token) >= 32
    assert access.token != other.token
    assert access.address(8000).endswith(f":8000/?token={access.token}")
    assert access.admits(access.token)
    assert not any(access.admits(given) for given in (None, "", other.token, access.token[:-1]))


def test_the_address_of_version_6_is_in_brackets() -> None:
    assert Access.of("::1", {}).address(8000) == "http://[::1]:8000/"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_users_own_token_is_asked_for_everywhere_and_not_printed(host: str) -> None:
    access = Access.of(host, {"VLM_RM_LABEL_TOKEN": "0123456789abcdef"})
    assert access.admits("0123456789abcdef")
    assert not access.admits(None)
    assert "0123456789abcdef" not in access.address(8000)


@pytest.mark.parametrize("token", ["short", "a token of several words", "0123456789abcde?", "0123456789abcdé", "a" * 201])
def test_a_token_that_could_be_guessed_or_is_no_word_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(UserError, match=r"VLM_RM_LABEL_TOKEN, which has .* expected 16 to 200 letters") as refused:
        Access.of("0.0.0.0", {"VLM_RM_LABEL_TOKEN": token})
    assert token not in str(refused.value)
