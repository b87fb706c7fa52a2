"""What the scripts beside this one ask of PyJWT, jwcrypto and Authlib alike.

All of them are imported at once: whoever lacks one of them has verified nothing.
"""

import base64
import json
from importlib.metadata import version

import jwt
from authlib.common.errors import AuthlibBaseError
from authlib.jose import JsonWebKey, JsonWebToken
from authlib.jose.errors import BadSignatureError
from jwcrypto import jwk as jwcrypto_jwk
from jwcrypto import jws as jwcrypto_jws
from jwcrypto import jwt as jwcrypto_jwt
from jwcrypto.common import JWException

# What a library refuses with, whatever displeases it, and what it says of a signature.
REFUSALS = (jwt.PyJWTError, JWException, AuthlibBaseError)
BAD_SIGNATURE = (jwt.InvalidSignatureError, jwcrypto_jws.InvalidJWSSignature, BadSignatureError)


def altered(token: str) -> list[str]:
    """The token with the first bit of its signature turned, and with the last."""
    signed, signature = token.rsplit(".", 1)
    genuine = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    others = []
    for position, bit in ((0, 0x80), (-1, 0x01)):
        turned = bytearray(genuine)
        turned[position] ^= bit
        others.append(f"{signed}.{base64.urlsafe_b64encode(turned).rstrip(b'=').decode()}")
    return others


def of_any_use(keys: dict) -> dict:
    """The keys of JWT-SVIDs for who knows the uses of RFC 7517 alone: the standard says `jwt-svid` (JWT-SVID §6)."""
    return {
        "keys": [
            {name: value for name, value in key.items() if (name, value) != ("use", "jwt-svid")}
            for key in keys["keys"]
        ]
    }


def pyjwt(token: str, keys: dict, audience: str, issuer: str | None) -> dict:
    key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
    required = ["sub", "aud", "iat", "exp", "jti"] + (["iss"] if issuer else [])
    options = {"require": required}
    return jwt.decode(
        token, key, algorithms=["ES256"], audience=audience, issuer=issuer, leeway=0, options=options
    )


def jwcrypto(token: str, keys: dict, audience: str, issuer: str | None) -> dict:
    usable = jwcrypto_jwk.JWKSet.from_json(json.dumps(of_any_use(keys)))
    key = usable.get_key(jwt.get_unverified_header(token)["kid"])
    checks = {"sub": None, "aud": audience, "iat": None, "exp": None, "jti": None}
    parsed = jwcrypto_jwt.JWT(algs=["ES256"], check_claims=checks | ({"iss": issuer} if issuer else {}))
    parsed.leeway = 0
    parsed.deserialize(token, key=key)
    return json.loads(parsed.claims)


def authlib(token: str, keys: dict, audience: str, issuer: str | None) -> dict:
    wanted = {name: {"essential": True} for name in ("sub", "aud", "iat", "exp", "jti")}
    wanted["aud"]["value"] = audience
    if issuer:
        wanted["iss"] = {"essential": True, "value": issuer}
    usable = JsonWebKey.import_key_set(of_any_use(keys))
    claims = JsonWebToken(["ES256"]).decode(token, usable, claims_options=wanted)
    claims.validate(leeway=0)
    return dict(claims)


# Each takes a token of the broker, the JWK Set that is published for it, its audience, and its issuer if it has one. It
# answers with the claims, or refuses.
LIBRARIES = {
    f"PyJWT {version('pyjwt')}": pyjwt,
    f"jwcrypto {version('jwcrypto')}": jwcrypto,
    f"Authlib {version('authlib')}": authlib,
}


def refuses(refusals: tuple, verify, *arguments) -> bool:
    """Whether it refuses, for what is asked here and for nothing else."""
    try:
        verify(*arguments)
    except refusals:
        return True
    return False


def claims_of(token: str, keys: dict, others: dict, audience: str, issuer: str | None) -> dict:
    """The claims of a token that every library takes as it is, and with nothing of it changed.

    `others` are published keys of another use: under the name of the right key, they must not verify it.
    """
    (read, *again) = [verify(token, keys, audience, issuer) for verify in LIBRARIES.values()]
    assert all(claims == read for claims in again), "the libraries read different claims"
    kid = jwt.get_unverified_header(token)["kid"]
    renamed = {"keys": [key | {"kid": kid} for key in others["keys"] if key.get("crv") == "P-256"][:1]}
    assert renamed["keys"]
    for name, verify in LIBRARIES.items():
        assert refuses(REFUSALS, verify, token, keys, audience + "/other", issuer), name
        if issuer:
            assert refuses(REFUSALS, verify, token, keys, audience, issuer + "/other"), name
        for other in altered(token):
            assert refuses(BAD_SIGNATURE, verify, other, keys, audience, issuer), name
        assert refuses(BAD_SIGNATURE, verify, token, renamed, audience, issuer), name
        print(f"{name}: accepted, and refused for whatever was changed")
    return read
