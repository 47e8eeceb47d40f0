package keymap

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// golden are names of the file format: two programs share a segment only if both map
// its key to the same name.
var golden = []struct{ about, key, name string }{
	{"a plain key", "frames", "frames-b56fq9g7qjo9s7764g907p0opb7uql2g.qshm"},
	{"another case", "Frames", "frames-5h27t385j185aajloqjb6mhf96kqv25c.qshm"},
	{"all upper case", "FRAMES", "frames-hjksg6nme3tqgusdk4bgn8j2p8e297rs.qshm"},
	{"a single character", "a", "a-pabo24ma3euslum266ppk8us9mjodrvo.qshm"},
	{"digits", "42", "42-ed3lpd0aaq78ra508n7d240jfoapv28a.qshm"},
	{"a text", "camera 1: left eye", "camera_1_left_eye-h81rkfo5u6f0h92a31a6h1epmtfchij5.qshm"},
	{"a gap at the end", "frames!", "frames-o67qbjtno81cjir7cug4dh4rtga8fng5.qshm"},
	{"nothing but gaps", "!?", "huno73h7r2qjilj19bqmsuk7q96gni5m.qshm"},
	{"a space", " ", "6qkufse9be1fvecn8fgcbh6einc3p6i3.qshm"},
	{"as long as a prefix", strings.Repeat("a", 24), "aaaaaaaaaaaaaaaaaaaaaaaa-17r1v3csqpf6k315g23s91dm54qk2die.qshm"},
	{"longer than a prefix", strings.Repeat("a", 25), "aaaaaaaaaaaaaaaaaaaaaaaa-5t91sajt1fc15iu06nqeqq06te6oa5sj.qshm"},
	{"a gap where the prefix ends", strings.Repeat("a", 23) + " b", "aaaaaaaaaaaaaaaaaaaaaaab-eahkao1e1hpnqem5o5ft020poni8a933.qshm"},
	{"a gap just before the prefix ends", strings.Repeat("a", 22) + " b", "aaaaaaaaaaaaaaaaaaaaaa_b-54uisqosqi5t8esorek3p2q4rd84qcd5.qshm"},
	{"very long", strings.Repeat("x", 1<<20), "xxxxxxxxxxxxxxxxxxxxxxxx-hucgn85leuqhps09t8296q61deuq3cgu.qshm"},
	{"a path upwards", "../../x", "x-jjfmkk0g1a32s518dht36gkmrbrtl2q5.qshm"},
	{"an absolute path", "/etc/passwd", "etc_passwd-eimf6624acj71fi15hirg98uslege9a9.qshm"},
	{"a Windows path", `C:\Windows\x`, "c_windows_x-c5fd4qor0h4sk4u3due2sgd06tupqfmj.qshm"},
	{"this directory", ".", "pmqesanad766l0pj3ev9dn1clad2j791.qshm"},
	{"NUL", "\x00", "doq0n77vmdt9h7558jjbmu0a5hs9079v.qshm"},
	{"a NUL in the middle", "a\x00b", "a_b-b6p73bgrniot67a1iac1ft5hduq3jqqf.qshm"},
	{"binary", "\xff\xfe\x80", "mopbvae61f0nuvunhmt327ujunfqcr5o.qshm"},
	{"German", "Größe", "gr_e-lre3v04oj9ikd5h70m2imbqa90erq7i9.qshm"},
	{"Japanese", "共有メモリ", "2afp7rc12pki6ddn1r04f72sv90uvm9h.qshm"},
	{"an emoji", "🙂", "q1nha9fni4sng2fpnic6gaqs2cootiic.qshm"},
	{"a composed letter", "\u00e9", "9aclavi06f1l77f2tdike80npbavilbv.qshm"},
	{"the same, decomposed", "e\u0301", "e-ns97cuof59bb4680emteg5kvcln3pq6m.qshm"},
	{"a device on Windows", "CON", "con-kfds9di4l6hca7jka2euqn26pjphr166.qshm"},
	{"the null device on Windows", "nul", "nul-j7j289qp05g3a69fhrv5uks7h8ql09lm.qshm"},
	{"an option", "-rf", "rf-d1m3jb6m69trqb3s7bna70n61ta68mjt.qshm"},
	{"a hidden file", ".live.0123456789abcdef", "live_0123456789abcdef-bqheq6f5t0lohtoqhtlbcg34fd20de70.qshm"},
	{"a name itself", "frames-0123456789abcdefghijklmnopqrstuv", "frames_0123456789abcdefg-7hb61gg4970198o09o8jgu5tv9ig4n84.qshm"},
	{"the empty key", "", "seoc8gkovge196nruj49irtp4gjqsgf4.qshm"},
}

func TestNamesStayTheSame(t *testing.T) {
	for _, g := range golden {
		if got := Name(g.key); got != g.name {
			t.Errorf("%s: Name(%.40q) = %q, want %q", g.about, g.key, got, g.name)
		}
	}
}

// anyKey draws keys of every kind, and keys that differ by little.
func anyKey() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		rapid.StringMatching(`[aA]{0,3}[ ._/\\-]{0,2}[bB]{0,3}`),
		rapid.StringMatching(`[a-zA-Z0-9 ]{20,30}`),
	)
}

func TestDifferentKeysHaveDifferentNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyKey().Draw(t, "a"), anyKey().Draw(t, "b")
		if same := strings.EqualFold(Name(a), Name(b)); same != (a == b) {
			t.Fatalf("%q and %q have the names %q and %q, which a file system that ignores case takes for the same: %v",
				a, b, Name(a), Name(b), same)
		}
	})
}

func TestNamesDifferOnlyInCaseOfTheKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringMatching(`[a-z]{1,40}`).Draw(t, "key")
		if lower, upper := Name(key), Name(strings.ToUpper(key)); strings.EqualFold(lower, upper) {
			t.Fatalf("%q and the same in upper case share the name %q", key, lower)
		}
	})
}

// reserved are the names that Windows takes for devices, with any suffix.
var reserved = []string{"con", "prn", "aux", "nul", "com1", "com9", "lpt1", "lpt9", "conin$", "conout$"}

func TestNamesAreFileNamesOnEverySystem(t *testing.T) {
	const safe = "abcdefghijklmnopqrstuvwxyz0123456789-_"
	check := func(t interface{ Fatalf(string, ...any) }, key string) {
		name := Name(key)
		stem, ok := strings.CutSuffix(name, ".qshm")
		switch {
		case !ok:
			t.Fatalf("the name of %q has no suffix: %q", key, name)
		case len(stem) < hashChars || len(name) > 62:
			t.Fatalf("the name of %q has %d characters: %q", key, len(name), name)
		case strings.Trim(stem, safe) != "":
			t.Fatalf("the name of %q is %q, with characters that are not safe everywhere", key, name)
		case strings.ContainsAny(name[:1], "-_"):
			t.Fatalf("the name of %q begins with a punctuation mark: %q", key, name)
		}
		for _, device := range reserved {
			if stem == device {
				t.Fatalf("the name of %q is a device on Windows: %q", key, name)
			}
		}
	}
	for _, key := range reserved {
		check(t, key)
	}
	rapid.Check(t, func(t *rapid.T) { check(t, anyKey().Draw(t, "key")) })
}

func TestIsNameKnowsEveryName(t *testing.T) {
	for _, g := range golden {
		if !IsName(Name(g.key)) {
			t.Errorf("%s: IsName(%q) = false", g.about, Name(g.key))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		key := anyKey().Draw(t, "key")
		if !IsName(Name(key)) {
			t.Fatalf("IsName(Name(%q)) = false; the name is %q", key, Name(key))
		}
	})
}

func TestIsNameRefusesOtherNames(t *testing.T) {
	hash := strings.Repeat("0", hashChars)
	for _, stem := range []string{
		"", "frames", "-" + hash, "_-" + hash, "frames" + hash, "frames_" + hash, "frames-" + hash[1:],
		"Frames-" + hash, "fr ames-" + hash, "fr--ames-" + hash, "fr-ames-" + hash, "_frames-" + hash, "frames_-" + hash,
		strings.Repeat("a", 25) + "-" + hash, "frames-" + strings.ToUpper("v"+hash[1:]), "frames-w" + hash[1:],
		"../" + hash, "a/../b-" + hash, ".live.0123456789abcdef", ".", "..", "größe-" + hash, "frames-" + hash + ".tmp",
		"frames-" + hash + "\x00", strings.Repeat("\x00", hashChars), "frames-" + hash + ".qshm",
	} {
		if IsName(stem + ".qshm") {
			t.Errorf("IsName(%q) = true", stem+".qshm")
		}
	}
	for _, name := range []string{
		hash, "d41d8cd98f00b204e9800998ecf8427e", "frames-" + hash, "frames-" + hash + ".QSHM", "frames-" + hash + "qshm",
		"frames-" + hash + ".qshm.", "frames-" + hash + ".qshm.0123456789abcdef.s0", ".qshm",
	} {
		if IsName(name) {
			t.Errorf("IsName(%q) = true", name)
		}
	}
}
