"""Judges tokens that Brevet accepts with stock libraries: PyJWT, jwcrypto and Authlib.

usage: stock_differential.py <cases.jsonl

A case is {"id", "token", "keys", "audience"?, "at"}: `keys` are the JWKs of the issuer, and with an audience the claims
are judged too, as of the second `at` where the library can be told the time. Every library must accept every token, and
refuse it with one bit of its signature turned. Prints how many; exit 0 if all do.
"""

import json
import sys

import jwt
from authlib.jose import JsonWebKey, JsonWebSignature, JsonWebToken
from jwcrypto import jwk as jwcrypto_jwk
from jwcrypto import jws as jwcrypto_jws
from jwcrypto import jwt as jwcrypto_jwt
from stock_libraries import BAD_SIGNATURE, altered, refuses


def key_of(case: dict, header: dict) -> dict:
    """The key that `kid` names; what it is for is Brevet's to judge, and unknown uses confuse some libraries."""
    (key,) = [key for key in case["keys"] if key.get("kid") == header["kid"]]
    return {name: value for name, value in key.items() if name not in ("use", "x5c")}


def pyjwt(token: str, key: dict, alg: str, audience: str | None, _at: int) -> None:
    verifying = jwt.PyJWK(key | {"alg": alg}).key
    if audience is None:
        jwt.api_jws.decode(token, verifying, algorithms=[alg])
        return
    options = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "require": ["exp", "aud", "sub"]}
    jwt.decode(token, verifying, algorithms=[alg], audience=audience, options=options)


def jwcrypto(token: str, key: dict, alg: str, audience: str | None, _at: int) -> None:
    verifying = jwcrypto_jwk.JWK(**key)
    if audience is None:
        parsed = jwcrypto_jws.JWS()
        parsed.allowed_algs = [alg]
        parsed.deserialize(token, key=verifying, alg=alg)
        return
    # Its times are judged by the clock of today; what is left to compare is that they are there.
    parsed = jwcrypto_jwt.JWT(algs=[alg], check_claims={"aud": audience})
    parsed.leeway = 10**10
    parsed.deserialize(token, key=verifying)
    claims = json.loads(parsed.claims)
    assert "exp" in claims and "iat" in claims, claims


def authlib(token: str, key: dict, alg: str, audience: str | None, at: int) -> None:
    verifying = JsonWebKey.import_key(key)
    if audience is None:
        JsonWebSignature([alg]).deserialize_compact(token, verifying)
        return
    claims = JsonWebToken([alg]).decode(
        token, verifying, claims_options={"aud": {"essential": True, "value": audience}, "exp": {"essential": True}}
    )
    claims.validate(now=at)


def main() -> int:
    libraries = {f"PyJWT {jwt.__version__}": pyjwt, "jwcrypto": jwcrypto, "Authlib": authlib}
    judged = 0
    failed = []
    for line in sys.stdin:
        case = json.loads(line)
        token = case["token"]
        header = jwt.get_unverified_header(token)
        rest = (key_of(case, header), header["alg"], case.get("audience"), case["at"])
        for name, verify in libraries.items():
            try:
                verify(token, *rest)
            except Exception as refusal:  # each library has its own kinds
                failed.append(f"{case['id']}: {name} refuses it: {refusal!r}")
            if not all(refuses(BAD_SIGNATURE, verify, other, *rest) for other in altered(token)):
                failed.append(f"{case['id']}: {name} takes it with another signature")
        judged += 1
    print("\n".join(failed))
    print(f"{judged} tokens that Brevet accepts: {', '.join(libraries)} accept them too" if not failed else "they differ")
    return 1 if failed or not judged else 0


if __name__ == "__main__":
    sys.exit(main())
