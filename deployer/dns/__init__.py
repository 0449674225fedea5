"""Names: the stack's records at the vendors of its zones, and whether the world sees them.

    manage          plan, apply and remove, at every vendor side by side
    merge, owners   what a zone shall hold beside other people's records; pure
    octo, vendors   octoDNS, and the three vendors whose values are kept byte for byte
    authoritative   what every name server of a zone answers

octoDNS and the vendors' libraries are imported only when an inventory has the section `dns`.
"""
