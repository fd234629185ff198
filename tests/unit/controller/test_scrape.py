"""How the operator calls the engines of a ModelDeployment."""

import ssl

import certifi
import pytest

from halffull.controller.scrape import Credentials


def test_a_bundle_of_authorities_may_have_names_in_any_language_between_its_certificates() -> None:
    bundle = f"# TÜRKTRUST Elektronik Sertifika Hizmet Sağlayıcısı\n{certifi.contents()}"

    context = Credentials("https", ca=bundle).tls()

    assert context is not None
    assert context.get_ca_certs()


def test_an_authority_that_is_no_certificate_is_refused() -> None:
    with pytest.raises(ssl.SSLError):
        Credentials("https", ca="Sağlayıcısı").tls()
