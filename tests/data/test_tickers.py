"""Who a text is about: cashtags and names, and the many things that only look like them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcore import config
from fmcore.data import news_demo, tickers


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # cashtags
        ("$AAPL and $MSFT up", ["AAPL", "MSFT"]),
        ("$AAPL,$MSFT.", ["AAPL", "MSFT"]),
        ("$BRK.B's gain, $RDS-B", ["BRK.B", "RDS.B"]),
        ("$aapl to the moon", ["AAPL"]),
        ("($LGF)", ["LGF"]),
        # a letter alone is a ticker only in company
        ("Well done UCLA! Beat $C!", []),
        ("$T", []),
        ("$T rallies as AT&T beats", ["T"]),
        ("Dow $AXP $UTX $V", ["AXP", "UTX", "V"]),
        ("Tellory Networks sinks", ["T"]),
        # money, slang, words
        ("I lost $5 and $USD, then $5B and $K", []),
        ("US$AAPL C$AD A$AP", []),
        ("$now is good, $all in", []),
        ("IT spending rises at ALL firms ON a COST drive", []),
        ("$TOOLONGTAG", []),
        # addresses
        ("see https://x.example/$AAPL/Microsoft and www.tesla.example", []),
        ("@Microsoft said", []),
        # exchange marks
        ("AT&T (NYSE: T) and Apple (NASDAQ:AAPL)", ["T", "AAPL"]),
        # names
        ("Microsoft's cloud", ["MSFT"]),
        ("McDonald’s sales", ["MCD"]),
        ("Wal-Mart and Coca-Cola Co", ["WMT", "KO"]),
        ("apple pie", []),
        ("Apple pie is nice", []),
        ("Apple shares fall", ["AAPL"]),
        ("Target of the raid was a house", []),
        ("Target raises its dividend", ["TGT"]),
        ("Teslas and Intelligence", []),
        ("", []),
    ],
)
def test_mentions_count_and_false_friends_do_not(words, expected):
    assert list(tickers.find(words)) == expected


def test_a_cashtag_beside_a_doubtful_name_confirms_it():
    assert tickers.find("Apple pie") == () and set(tickers.find("Apple pie with $KO")) == {"KO", "AAPL"}


def test_every_demo_company_is_found_by_its_names_and_has_its_sector():
    for company in news_demo.COMPANIES:
        for name in (company.name, *company.aliases):
            assert tickers.find(f"Worries about {name} grow") == (company.ticker,)
        assert tickers.sector_of(company.ticker) == company.sector


def test_a_persons_own_list_comes_first_and_is_read_when_it_changes(tmp_path):
    assert tickers.sector_of("ZZZT") == tickers.UNKNOWN_SECTOR
    own = config.settings().home / tickers.OWN_LIST
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(
        "ticker,name,aliases,sector\nZZZT,Zebra Zinc Trust,Zebra Zinc|?Zebra,Mining\nAAPL,Apple Inc,,Fruit\n", encoding="utf-8-sig"
    )
    assert tickers.find("Zebra Zinc wins") == ("ZZZT",) and tickers.find("Zebra crossing") == ()
    assert tickers.sector_of("ZZZT") == "Mining" and tickers.sector_of("AAPL") == "Fruit"


def test_a_broken_list_says_where():
    own = config.settings().home / tickers.OWN_LIST
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("ticker,name\nABC,Abc Corp\n,nameless\n")
    with pytest.raises(tickers.BadList, match="Line 3"):
        tickers.find("x")


def test_the_public_list_adds_its_companies(public_data):
    assert tickers.find("Shares of Danaher and General Dynamics") == ("DHR", "GD")
    assert tickers.sector_of("XOM") == "Energy" and tickers.sector_of("PTR") == "Basic Materials"


@pytest.mark.parametrize(("written", "expected"), [(" $brk-b ", "BRK.B"), ("T", "T"), ("0700", "0700"), ("", ""), ("two words", ""), ("$", ""), ("ABCDEFGH", ""), (None, "")])  # fmt: skip
def test_tickers_have_one_way_to_be_written(written, expected):
    assert tickers.normal(written) == expected


@given(st.text(alphabet=st.one_of(st.sampled_from("$AaT.-'’ :&/5"), st.characters()), max_size=300))
def test_any_text_has_an_answer_of_real_tickers(words):
    found = tickers.find(words)
    assert len(found) == len(set(found)) <= tickers.MAX_TICKERS
    assert all(tickers.normal(ticker) == ticker for ticker in found)
