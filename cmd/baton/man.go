package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand writes the manual, for packagers.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a folder",
		Hidden: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%w: one folder for the manual pages", errUsage)
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return writeManual(args[0]) },
	}
}

// writeManual writes all pages.
func writeManual(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range manual() {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// manual returns the pages by file name.
func manual() map[string]string {
	root := newApp(io.Discard).command()
	pages := map[string]string{"baton.1": rootPage(root)}
	for _, cmd := range subcommands(root) {
		pages[pageName(cmd)+".1"] = commandPage(cmd)
	}
	return pages
}

// subcommands are the commands with a page of their own; cobra's completion command is
// described in baton(1).
func subcommands(root *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(root.Commands()), func(c *cobra.Command) bool { return c.Hidden || c.Name() == "completion" })
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func rootPage(root *cobra.Command) string {
	var p page
	p.begin(root)
	p.line(`.B baton`)
	p.line(`.I COMMAND`)
	p.line(`.RI [ NAME ]`)
	p.line(`.RI [ OPTIONS ]`)
	p.section("DESCRIPTION")
	p.text(about)
	p.section("COMMANDS")
	for _, cmd := range subcommands(root) {
		p.item(fmt.Sprintf(`\fB%s\fR(1)`, escape(pageName(cmd))), cmd.Short)
	}
	p.item(`\fBbaton completion\fR \fISHELL\fR`, "Completions for bash, zsh, fish or powershell")
	p.section("OPTIONS")
	p.flags(root.PersistentFlags())
	p.section("EXIT STATUS")
	for status, text := range exitTexts() {
		p.item(fmt.Sprintf(`\fB%d\fR`, status), text)
	}
	p.section("FILES")
	for _, f := range [][2]string{
		{"/run/baton/NAME/control.sock", "control socket of a server that root runs"},
		{"$XDG_RUNTIME_DIR/baton/NAME/control.sock", "the same for other users"},
		{"/tmp/baton-UID/NAME/control.sock", "the same where XDG_RUNTIME_DIR is not set; TMPDIR replaces /tmp"},
	} {
		p.item(`\fI`+escape(f[0])+`\fR`, f[1])
	}
	p.section("ENVIRONMENT")
	for _, v := range [][2]string{
		{"XDG_RUNTIME_DIR, TMPDIR", "where control sockets are, see FILES"},
		{"NO_COLOR", "no colours if it is set to any value, see https://no-color.org"},
		{"TERM", "no colours and no live progress if it is dumb"},
	} {
		p.item(`\fB`+escape(v[0])+`\fR`, v[1])
	}
	p.also(root)
	return p.String()
}

func commandPage(cmd *cobra.Command) string {
	var p page
	p.begin(cmd)
	p.line(`.B ` + escape(cmd.CommandPath()))
	_, args, _ := strings.Cut(cmd.Use, " ")
	if args != "" {
		p.line(`.I ` + escape(args))
	}
	p.line(`.RI [ OPTIONS ]`)
	p.section("DESCRIPTION")
	p.text(cmd.Long)
	p.section("OPTIONS")
	p.flags(cmd.LocalNonPersistentFlags())
	p.flags(cmd.Root().PersistentFlags())
	if cmd.Example != "" {
		p.section("EXAMPLES")
		p.verbatim(strings.Split(cmd.Example, "\n"))
	}
	p.section("EXIT STATUS")
	p.text("0 on success; baton(1) lists the other statuses.")
	p.section("FILES AND ENVIRONMENT")
	p.text("See baton(1).")
	p.also(cmd)
	return p.String()
}

// page is a page in man(7) format.
type page struct{ strings.Builder }

func (p *page) line(text string) { p.WriteString(text + "\n") }

func (p *page) section(name string) { p.line(".SH " + name) }

// begin writes the part before a page's synopsis. It has no date, so that the same
// sources always make the same page.
func (p *page) begin(cmd *cobra.Command) {
	p.line(`.\" Made by "make man" from the sources of the command.`)
	p.line(fmt.Sprintf(".TH %s 1 \"\" Baton \"User Commands\"", strings.ToUpper(escape(pageName(cmd)))))
	p.line(".nh") // don't hyphenate options and file names
	p.section("NAME")
	p.line(escape(pageName(cmd)) + ` \- ` + escape(strings.ToLower(cmd.Short[:1])+cmd.Short[1:]))
	p.section("SYNOPSIS")
}

func (p *page) also(cmd *cobra.Command) {
	p.section("SEE ALSO")
	var all []string
	for _, c := range append([]*cobra.Command{cmd.Root()}, subcommands(cmd.Root())...) {
		if c != cmd {
			all = append(all, `.BR `+escape(pageName(c))+` (1)`)
		}
	}
	p.line(strings.Join(all, " ,\n"))
}

// item writes a tagged paragraph; tag is already escaped.
func (p *page) item(tag, text string) {
	p.line(".TP")
	p.line(tag)
	p.line(escape(text))
}

// text writes paragraphs; indented ones are kept as they are.
func (p *page) text(long string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(long), "\n\n") {
		if i > 0 {
			p.line(".PP")
		}
		lines := strings.Split(paragraph, "\n")
		if at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "  ") }); at >= 0 {
			p.prose(lines[:at])
			p.verbatim(lines[at:])
			continue
		}
		p.prose(lines)
	}
}

func (p *page) prose(lines []string) {
	for _, l := range lines {
		p.line(escape(l))
	}
}

func (p *page) verbatim(lines []string) {
	p.line(".EX")
	p.prose(lines)
	p.line(".EE")
}

func (p *page) flags(set *pflag.FlagSet) {
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		tag := `\fB` + escape("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			tag = `\fB` + escape("-"+f.Shorthand) + `\fR, ` + tag
		}
		arg, usage := pflag.UnquoteUsage(f)
		if arg != "" {
			tag += `=\fI` + escape(arg) + `\fR`
		}
		if !slices.Contains([]string{"", "false", "0", "0s", "[]"}, f.DefValue) {
			usage += " (default: " + f.DefValue + ")"
		}
		p.item(tag, usage)
	})
}

// escape quotes a text for roff(7).
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, `-`, `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
